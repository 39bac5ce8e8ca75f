"""Words: what a caption's text says about motion, stillness, the camera and lettering, and what in it must never reach a sample."""

import re
import unicodedata
from dataclasses import dataclass

from captioning.verbs import BARE, ED, NOUN_BARE, NOUN_S, STATIVE_S, STILL_ING, S

_SUBJECT = re.compile(r"\b(?:he|she|it|they|who|that|which|and|then|camera|man|woman|person|boy|girl|child|player|\w+ly|to)\s+$", re.I)
_PLURAL = re.compile(r"\b(?:(?!his|its|was|has|this|across|towards)\w{2,}s|they|people|men|women|children|and|to|both|all)\s+$", re.I)
_SOME_PLURAL = re.compile(_PLURAL.pattern.replace(r"\s+$", r"(?:\s+\w+){0,2}\s+$"), re.I)
_OBJECT = re.compile(r"^\s+(?:the|an?|his|her|its|their|it|them|him|himself|herself|itself|themselves)\b", re.I)
_GOES_ON = re.compile(
    r"^\s+(?:the|an?|his|her|its|their|it|them|him|up|down|left|right|out|off|away|back|around|across|along|through|past|into|onto|towards?|beside|against|together|again|\w+ly)\b",
    re.I,
)
_STILL = re.compile(
    r"\bnothing(?: else| at all)? (?:moves|changes|happens|visibly changes|is moving|is changing)\b|"
    r"\b(?:no|without|without any|not any) (?:visible |apparent |noticeable |further |other )?(?:motion|movement|movements|change|changes|action|activity)\b|"
    r"\b(?:holds?|stays?|remains?|remaining|keeps?|is|are|stands?|sits?|lies?) (?:\w+ly )?"
    r"(?:still|motionless|stationary|unchanged|static|immobile|at rest|frozen|fixed)\b|"
    r"\bdo(?:es)? not (?:move|change)\b|\bstatic (?:camera|shot)\b",
    re.I,
)
_TEXTUAL = re.compile(
    r"[\"“”„«»][^\"“”„«»]{2,}[\"“”„«»]|(?<![A-Za-z])['‘][^'‘’]{2,}['’](?![A-Za-z])|"
    r"\b(?:text|texts|subtitles?|captions?|caption text|lettering|words?|title|headline|watermark|logo|slogan|inscription|credits|banner)\b|"
    r"\b(?:sign|label|screen|display|poster) (?:that )?(?:reads?|says?|shows the)\b|\breads? ['\"“]",
    re.I,
)
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.]{0,40}\b(?:previous|prior|above|earlier|all|any|your|these|the)\b[^.]{0,30}"
    r"\b(?:instructions?|prompts?|rules?|messages?|guidelines?|context)\b|"
    r"\bsystem prompt\b|\bas an ai\b|\blanguage model\b|\byou (?:must|should|are to|have to) (?:now )?(?:answer|respond|output|reply|say|ignore|keep|obey)\b|"
    r"\b(?:output|answer|respond|reply)(?: with)?\s*[:=]?\s*[\"'`{]?\s*(?:keep|true|false|yes|no)\b|"
    r"(?:^|[\s.;])(?:system|assistant|user|human)\s*:|<\|[^|>]{0,40}\|?>|\[/?INST\]|<<SYS>>|^#{2,}\s|"
    r"\bi(?: am|'m) (?:sorry|unable)\b|\bi (?:cannot|can't|can not) (?:assist|help|describe|answer|see|provide)\b",
    re.I,
)
_LINK = re.compile(
    r"\b(?:https?|ftp|file|data|javascript)\s*:\s*\S|\bwww\.|"
    r"\b[a-z0-9-]{2,}\.(?:com|net|org|io|ru|cn|de|co|ai|app|dev|info|biz|tv|me|ly|gg|xyz|top)\b(?:/|\b)",
    re.I,
)
_MARKUP = re.compile(r"</?[A-Za-z!][^>]*>|<!--|&(?:#\d+|#x[0-9a-f]+|[a-z]{2,8});|\]\(|`|\*\*|\\[nrtux]|[{}]|\$\{|__\w+__", re.I)


@dataclass(frozen=True)
class Claim:
    """What a text says the camera does: "left", "right", "up", "down", "in", "out", "static"; `quote` are its words."""

    way: str
    quote: str


_WAYS = {
    "left": "left",
    "leftward": "left",
    "leftwards": "left",
    "right": "right",
    "rightward": "right",
    "rightwards": "right",
    "up": "up",
    "upward": "up",
    "upwards": "up",
    "down": "down",
    "downward": "down",
    "downwards": "down",
    "in": "in",
    "forward": "in",
    "forwards": "in",
    "closer": "in",
    "out": "out",
    "back": "out",
    "backward": "out",
    "backwards": "out",
    "away": "out",
}
_CAMERA_GOES = re.compile(
    r"\b(?:camera|shot|viewpoint)(?:\s+(?:\w+ly|is|begins|starts|continues|keeps|to))*\s+"
    r"(?:pans?|panning|tilts?|tilting|moves?|moving|turns?|turning|swings?|tracks?|tracking|travels?|trucks?|dollies|dollying|"
    r"zooms?|zooming|pulls?|pulling|pushes|pushing|glides?|rises?|cranes?)\s+"
    r"(?:\w+ly\s+)?(?:to(?:wards?)? (?:the )?)?(?P<way>" + "|".join(sorted(_WAYS, key=len, reverse=True)) + r")\b",
    re.I,
)
_CAMERA_RESTS = re.compile(
    r"\bcamera (?:\w+ )?(?:is|holds|stays|remains|keeps|remaining) (?:\w+ly )?(?:still|static|stationary|fixed|motionless|steady)\b|"
    r"\b(?:static|fixed|stationary) camera\b",
    re.I,
)
_NOT = re.compile(r"\b(?:not|never|without|stops?|no longer|instead of|after|before|until|first|then|followed by)\b", re.I)


def camera_claims(text: str) -> list[Claim]:
    """What `text` says the camera does throughout; a sentence in which it does one thing after another, or does not, claims nothing that can be checked."""
    found = []
    for sentence in re.split(r"(?<=[.;])\s+", text):
        goes, rests = list(_CAMERA_GOES.finditer(sentence)), list(_CAMERA_RESTS.finditer(sentence))
        if len(goes) + len(rests) != 1 or _NOT.search(sentence):
            continue
        found += [Claim(_WAYS[m["way"].lower()], m[0]) for m in goes] + [Claim("static", m[0]) for m in rests]
    return found


def says_still(text: str) -> bool:
    """Whether the text says that something rests or that nothing happens."""
    return bool(_STILL.search(text))


def says_motion(text: str) -> bool:
    """Whether the text tells of anything that happens, apart from what it says to be at rest.

    A caption that is wrongly taken for static costs a try or a clip, one that is wrongly taken for motion only misses a check: an unknown verb in
    -ing counts.
    """
    rest = _STILL.sub(" ; ", re.sub(r"[\"“„«][^\"“”„«»]*[\"”»]\s*", "", text))
    return any(_happens(match[0].lower(), rest[: match.start()], rest[match.end() :]) for match in re.finditer(r"[A-Za-z]+", rest))


def _happens(word: str, before: str, after: str) -> bool:
    """Whether `word`, between the texts `before` and `after`, is a verb of something that happens."""
    if word in STILL_ING:
        return False
    if word in S or word in ED or (len(word) > 5 and word.endswith("ing")):
        return True
    if word in NOUN_S and (_SUBJECT.search(before) or (not _bare_thing(before) and _GOES_ON.search(after))):
        return True
    if len(word) > 3 and word.endswith("s") and word not in STATIVE_S and not _bare_thing(before) and _OBJECT.search(after):
        return True
    if word in BARE and not _bare_thing(before):
        return bool(_SOME_PLURAL.search(before) or _GOES_ON.search(after))
    return word in NOUN_BARE and bool(_PLURAL.search(before))


def _bare_thing(before: str) -> bool:
    """Whether an article, preposition or number right before makes the next word a thing."""
    last = before.split()[-1:] or [""]
    return bool(re.fullmatch(r"an?|the|his|her|its|their|of|in|on|at|with|two|three|four|several|some|many|few", last[0], re.I))


def speaks_of_text(text: str) -> bool:
    """Whether the text quotes words or speaks of lettering."""
    return bool(_TEXTUAL.search(text))


def unsafe(text: str) -> str | None:
    """What in `text` must not reach a sample, or None: orders to a model, links, markup, invisible and control characters."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"):
            return f"the character U+{ord(character):04X}, which is not shown"
    for what, pattern in (("an order to a model or its role mark", _ORDERS), ("a link", _LINK), ("markup", _MARKUP)):
        if match := pattern.search(text):
            return f"{what}: {match[0][:60]!r}"
    return None


def plain(text: str) -> str:
    """The text's words alone, to tell whether two texts say the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))
