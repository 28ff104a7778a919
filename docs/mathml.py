"""Formulas as MathML, made when the pages are built: a page needs no script and no network."""

import re
from typing import Any

from docutils import nodes

SPELLINGS = (
    (r"\\([bB]igg?)(?=\)|\]|\\\}|\\r[a-z])", r"\\\1r"),  # docutils asks of a delimiter's size on which side it stands
    (r"\\([bB]igg?)(?![a-zA-Z])", r"\\\1l"),
    (r"\\([td]?frac)\s*(\w)\s*(\w)", r"\\\1{\2}{\3}"),  # without braces 12 is one number
    (r"(\\(?:tilde|hat|bar|overline)\s*(?:\{[^{}]*\}|\\[a-zA-Z]+|\w))(?=[_^])", r"{{}\1}"),  # else the index goes below
    (r"\\log\s+(?=[a-zA-Z\\])", r"\\log\\,"),
    (r"\\dots(?![a-zA-Z])", r"\\ldots"),
    (r"\\textstyle\s*(\\[a-zA-Z]+)", r"{\\textstyle\1}"),  # only at the beginning of a group
    (r"\s+", " "),
)
"""What docutils' converter does not know, or converts differently, and the spelling that gives what LaTeX gives."""


def mathml(tex: str, block: bool = False) -> str:
    r"""The ``<math>`` element of a formula.

    Raises
    ------
    docutils.utils.math.MathError : for what cannot be converted, which fails the build.

    Examples
    --------
    >>> mathml(r"\frac{1}{2}")
    '<math xmlns="http://www.w3.org/1998/Math/MathML">...<mfrac>...<mn>1</mn>...<mn>2</mn>...</mfrac>...</math>'

    """
    from docutils.utils.math.latex2mathml import tex2mathml

    for old, new in SPELLINGS:
        tex = re.sub(old, new, tex)
    # in LaTeX these grow only after \left and \right, which no formula here has around them
    return re.sub(r'<mo(| class="mathopen")>([{}‖⌊⌋])<', r'<mo\1 stretchy="false">\2<', tex2mathml(tex, as_block=block))


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(f'<span class="math notranslate nohighlight">{mathml(node.astext())}</span>')
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(writer.starttag(node, "div", CLASS="math notranslate nohighlight"))
    writer.body.append(mathml(node.astext(), block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer; with no other one Sphinx chooses it."""
    app.add_css_file("math.css")
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
