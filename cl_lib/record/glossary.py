"""Every number of a report in plain words."""

from typing import NamedTuple


class Term(NamedTuple):
    """A metric: its title, which direction is better ("up" or "down"), what it means in one sentence."""

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
        "Accuracy on the experiences seen so far, averaged over all evaluations: how good the network was on the way.",
    ),
    "forgetting": Term(
        "forgetting",
        "down",
        "Best accuracy an old experience ever had minus its accuracy at the end, averaged over old experiences.",
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
        "Accuracy on each experience right after it was trained, averaged: how well new things are learned.",
    ),
    "ece": Term(
        "ECE",
        "down",
        "Expected calibration error: mean distance between confidence and accuracy, in bins of equal width; "
        "0 means that predictions made with 80 % confidence are right 80 % of the time.",
    ),
    "adaptive_ece": Term("adaptive ECE", "down", "The same with bins that hold equally many samples."),
    "classwise_ece": Term(
        "class-wise ECE", "down", "The same for the probability of each class in turn, averaged over classes."
    ),
    "brier": Term(
        "Brier", "down", "Squared distance between predicted probabilities and the truth; 0 is perfect, 2 the worst."
    ),
    "nll": Term(
        "NLL", "down", "Negative log-likelihood of the right class, in nats; punishes confident mistakes most."
    ),
    "worst_class_accuracy": Term(
        "worst class", "up", "Final accuracy on the class that fares worst, of those with at least 30 test samples."
    ),
    "worst_experience_accuracy": Term(
        "worst experience",
        "up",
        "Final accuracy on the experience that fares worst, of those with at least 30 samples.",
    ),
}

SLICES: dict[str, str] = {
    "class": "Each class of the test set.",
    "experience": "Each test set of the stream, in the order in which it was trained on.",
    "age": "Classes grouped by recency: training steps since a new (not a replayed) sample of the class was last seen.",
}
