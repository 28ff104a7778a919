"""Definitions of the metrics and slices of a report, in one sentence each."""

from typing import NamedTuple


class Term(NamedTuple):
    """A metric: its title, the direction that is better ("up" or "down") and its definition in one sentence."""

    title: str
    better: str
    meaning: str


METRICS: dict[str, Term] = {
    "accuracy": Term(
        "accuracy",
        "up",
        "Share of test samples classified correctly after the whole stream; all test sets count equally.",
    ),
    "average_accuracy": Term(
        "average accuracy",
        "up",
        "Accuracy on the experiences seen so far, averaged over all evaluations during training.",
    ),
    "forgetting": Term(
        "forgetting",
        "down",
        "Highest earlier accuracy on an experience minus its final accuracy, averaged over earlier experiences.",
    ),
    "bwt": Term(
        "BWT",
        "up",
        "Backward transfer: final accuracy on an experience minus its accuracy right after it was learned; "
        "negative means forgotten.",
    ),
    "fwt": Term(
        "FWT",
        "up",
        "Forward transfer: accuracy on an experience just before it is trained minus that of the untrained network; "
        "positive means earlier experiences helped.",
    ),
    "learning_accuracy": Term(
        "learning accuracy",
        "up",
        "Accuracy on each experience right after it was trained, averaged over experiences.",
    ),
    "ece": Term(
        "ECE",
        "down",
        "Expected calibration error: mean distance between confidence and accuracy, in bins of equal width; "
        "0 means that 80 % of the predictions made with 80 % confidence are correct.",
    ),
    "adaptive_ece": Term("adaptive ECE", "down", "ECE with bins of equally many samples."),
    "classwise_ece": Term(
        "class-wise ECE", "down", "ECE of the predicted probability of each class, averaged over classes."
    ),
    "brier": Term(
        "Brier",
        "down",
        "Squared distance between predicted probabilities and one-hot labels; 0 is the best value, 2 the worst.",
    ),
    "nll": Term("NLL", "down", "Negative log-likelihood of the true class, in nats; penalises confident errors most."),
    "worst_class_accuracy": Term(
        "worst class", "up", "Lowest final accuracy on a class, among classes with at least 30 test samples."
    ),
    "worst_experience_accuracy": Term(
        "worst experience",
        "up",
        "Lowest final accuracy on an experience, among experiences with at least 30 test samples.",
    ),
}

SLICES: dict[str, str] = {
    "class": "Each class of the test set.",
    "experience": "Each test set of the stream, in the order in which it was trained on.",
    "age": "Classes grouped by recency: training steps since a new (not a replayed) sample of the class was last seen.",
}
