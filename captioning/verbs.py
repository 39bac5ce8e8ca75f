"""Verbs: the words that tell that something happens, and those that only look like it."""

#: Verbs that speak of something that happens, written by us for what short videos show; any other verb in -ing counts too.
_VERBS = """
accelerate advance appear approach arrive arise ascend bend bite blink blow bob bounce bow brake bring brush bump burst buzz carry catch chase cheer
chew chop clap clean climb collapse collide come continue crawl crouch crumble dance dangle dart descend dig dim disappear dive dodge drag drift drip
drive eat emerge enter erupt exit expand explode fade fall fight fill flap flash flicker flip float flow flutter fly gallop gesture get give glance
glide glow go grab grasp grow hop hug hurry increase intensify jerk jog join juggle jump kick kiss kneel lather laugh lean leap lick lift lower march
melt merge move nod orbit overtake pan pat pause pedal peel perform pivot plunge poke pop pour proceed pull punch push put race raise reach rearrange
reappear recede release remove repeat reveal reverse revolve ride rip rise rotate run rush scatter scoop scratch scroll shake shatter shift shimmer
shoot shrink shrug shuffle sink skate ski skid skip slam slap slide slip smash smile sneeze soar speak spill spin splash split spray spread sprint
squat squeeze stagger start stir stomp stop straighten stretch stride strike strum stumble sway sweep swell swerve swim swirl take talk tap throw tilt
toss touch tremble trot tug tumble turn walk cross travel crash gather slice rub wink snap drop twirl twist unfold unroll vanish vibrate wander wash
weave whirl whisk widen wiggle wipe withdraw wobble yank yawn zoom brighten darken
"""
#: Verbs whose bare and -s forms are also names of things ("lights", "a hand"): they count with a subject in front or an object, way or particle behind.
_NOUNS_TOO = """
aim back beat board break charge change circle close cook cut draw drink duck dust exchange feed flood fold follow hand haul head hit juggle knock
land launch leave light load mix nose open pack paddle paint park pass pedal pick pile plant play press progress ripple rock roll row sail saw set
settle shut sing slow smoke spark speed stack steer step stream surf surge swing switch tail tear tip tow track trail transform tuck type watch water
wave wheel whip wind work wrap write zip
"""
_PAST = """
arose ate began blew bought came caught drew drove fell fled flew flung gave got grew leapt ran rode rose sang sank shrank slid sped sprang strode
swam swept threw took went woke
"""
#: Words in -ing that say no action: things, and verbs of standing, lying and looking like something.
_STILL_ING = """
building buildings ceiling painting paintings clothing standing sitting seated lying wearing facing featuring showing depicting containing including
overlooking surrounding resting remaining existing consisting displaying belonging being having lighting setting settings railing railings awning
morning evening wedding string ring rings king spring thing things something nothing everything anything during parking dining living sleeping bedding
flooring roofing siding earring earrings wing wings sling sibling siblings viewing interesting outstanding matching stunning towering sprawling
winding leading hanging holding adjoining neighboring neighbouring according regarding concerning duckling darling covering bling sterling ceilings
crossing landing opening dressing frosting icing stuffing filling topping pudding meeting gathering recording drawing writing lining looking
"""


def _past(verb: str) -> set[str]:
    """The verb with -ed."""
    return {f"{verb[:-1] if verb.endswith('e') else verb}ed", f"{verb}{verb[-1]}ed"} | ({f"{verb[:-1]}ied"} if verb.endswith("y") else set())


def _third(verb: str) -> set[str]:
    """The verb with -s."""
    return {f"{verb}s", f"{verb}es"} | ({f"{verb[:-1]}ies"} if verb.endswith("y") else set())


#: Bare and -s forms of verbs, and of those that are also things; -ed and past forms; words in -ing that say no action.
BARE, NOUN_BARE = frozenset(_VERBS.split()), frozenset(_NOUNS_TOO.split())
S, NOUN_S = (frozenset(form for verb in verbs for form in _third(verb)) for verbs in (BARE, NOUN_BARE))
ED = frozenset(form for verb in BARE for form in _past(verb)) | frozenset(_PAST.split())
STILL_ING = frozenset(_STILL_ING.split())
