"""Random patterns, and paths that nearly match them."""

from __future__ import annotations

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from casfs.errors import LayoutError
from casfs.layouts.layout import Definition, Layout
from casfs.layouts.patterns import Item, Literal, Token

TOKENS = [
    *("[org]", "[orgPath]", "[module]", "[baseRev]", "[classifier]", "[ext]", "[type]"),
    *("[fileItegRev]", "[folderItegRev]", "[x<a+>]", "[y<1.*>]", "[z<(?:a|-)+>]", "[lazy<a.*?>]"),
]
LITERALS = ["-", ".", "/", "a", "/-/", "s/", "-a", "1."]
ALPHABET = "a-./1s"


def _parts(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(
        st.sampled_from(TOKENS) | st.sampled_from(LITERALS) | inner.map(lambda text: f"({text})"),
        min_size=1,
        max_size=5,
    ).map("".join)


texts = st.recursive(
    st.lists(st.sampled_from(TOKENS) | st.sampled_from(LITERALS), min_size=1, max_size=4).map("".join),
    _parts,
    max_leaves=8,
)


@st.composite
def layouts(draw: DrawFn) -> Layout:
    """Without a mandatory token, so that small patterns are some."""
    definition = Definition(
        name="random",
        artifact=draw(texts),
        descriptor=draw(st.just("") | texts),
        file_integration="1{2}|a",
        roles={"org": "", "module": "", "baseRev": ""},
    )
    try:
        return Layout(definition)
    except LayoutError:
        assume(False)
        raise


@st.composite
def paths(draw: DrawFn, items: tuple[Item, ...]) -> str:
    """Made as the pattern says, of texts that fit or nearly, and repeated tokens mostly the same."""
    values: dict[str, str] = {}

    def write(items: tuple[Item, ...]) -> str:
        text = ""
        for item in items:
            if isinstance(item, Literal):
                text += item.text
            elif isinstance(item, Token):
                if item.name not in values or draw(st.integers(0, 9)) == 0:
                    values[item.name] = draw(st.text(ALPHABET, min_size=1, max_size=4))
                text += values[item.name]
            elif draw(st.booleans()):
                text += write(item.items)
        return text

    text = write(items)
    while "//" in text:
        text = text.replace("//", "/")
    return text.strip("/") or "a"
