"""The prompt texts, versioned: a caption says in its row by which of them it was made."""

from collections.abc import Sequence

from curation.vlm import SYSTEM, Prompt

#: The `measured` backend asks no model: its version is that of the sentences in captioning.measured and of the thresholds behind their words.
MEASURED_VERSION = "measured/1"

#: Raise the number with any change of `dense`'s text: rows tell by it which words they answer.
DENSE_VERSION = "captions/1"


def dense(spans: Sequence[tuple[float, float]]) -> Prompt:
    """The question about a clip of `len(spans)` chunks, [start, end) in s each, whose pictures stand before it.

    PAN's captions are its action inputs: what the first picture already shows need not be told, what happens after it must be.

    Source: PAN, section 6.3 (dense captions of motion, events, changes and objects that appear, not of static background).
    """
    grid = "\n".join(f"- chunk {k}: {start:.2f} s to {end:.2f} s" for k, (start, end) in enumerate(spans))
    text = f"""Describe how this clip changes over time. It is {spans[-1][1]:.2f} seconds long and is read in {len(spans)} chunks:
{grid}

Write for someone who already sees the first picture and must foresee the following ones. Tell what moves and which way, how people and things
act on one another, what appears, leaves, opens, breaks, lights up or is handed over, and what the camera does. Leave out what stays as it is: the
place, colours, clothes and furniture are worth a word only where they tell two things apart.

- "camera": stretches of the clip with what the camera does in each, one or more of the listed moves; stretches may overlap.
- "actors": at most eight persons, animals or things that act, each named by what sets it apart ("the woman in red"), never by a person's own
  name, with its timed actions; actions may overlap.
- "chunks": one entry a chunk, numbered from 0, in order. "action" is one or two sentences in the present tense about that chunk alone; where the
  same goes on, say how it goes on. Where nothing at all moves, say that nothing moves.
- "caption": two or three sentences about the whole clip, in the order in which things happen.

Times are seconds from the clip's start, to a quarter of a second, between 0 and {spans[-1][1]:.2f}. Do not read out words that appear in the
pictures, and do not guess what is said, thought or felt. Answer with the JSON object alone."""
    return Prompt("captions", DENSE_VERSION, SYSTEM, text)


def dense_sha256() -> str:
    """sha256 in hex of the dense question about a clip of two chunks: a changed text under an old version number is still another text."""
    return dense([(0.0, 2.5625), (2.5625, 5.0625)]).sha256
