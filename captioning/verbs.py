"""Verbs: the words that tell that something happens, and those that only look like it."""

#: Verbs that speak of something that happens, written by us for what short videos show; any other verb in -ing counts too.
_VERBS = """
accelerate advance appear applaud approach arise arrive ascend assemble bark bend bite blink bloom blow bob boil bounce bow brake brighten bring brush
bump burst buzz carry catch chase cheer chew chop clap clean climb close collapse collide come continue converge crash crawl cross crouch crumble
dance dangle darken dart deflate descend dig dim disappear dismantle dissolve dive diverge dodge drag dribble drift drip drive drop dunk eat emerge
enter erupt exhale exit expand explode extinguish fade fall fasten fight fill flap flash flee flicker flip float flow flutter fly follow freeze gallop
gather gesture get give glance glide glow gnaw go grab grasp grate graze grind grow gush hammer hop hug hurry ignite increase inflate inhale intensify
jerk jog join juggle jump kick kiss knead kneel knit lather laugh lean leap lick lift lower march melt meow merge move nibble nod ooze open orbit
overtake pan pat pause pedal peel perform pirouette pivot pluck plunge poke polish pop pour proceed pull punch push put race raise reach reappear
rearrange recede refocus release remove repeat reveal reverse revolve ricochet ride rinse rip rise rotate rub run rush salute scatter scoop scramble
scratch scroll scrub scurry settle sew shake shatter shift shimmer shiver shoot shout shovel shrink shrug shuffle sift simmer sing sink sip sizzle
skate ski skid skip slam slap slice slide slip smash smile snap sneeze soar sort speak spill spin splash split spray spread sprint sprout squat
squeeze stagger start stir stitch stomp stop straighten stretch stride strike strum stumble swallow swarm sway sweep swell swerve swim swirl take talk
tap thaw throw tie tilt topple toss touch transform travel tremble trickle trot tug tumble turn twirl twist unbutton unfasten unfold unload unpack
unroll untie unwrap unzip vanish vibrate wade walk wander wash weave weld whirl whisk whistle widen wiggle wink wipe withdraw wither wobble wrestle
yank yawn yell yelp yodel zoom
"""
#: Verbs whose bare and -s forms are also names of things ("lights", "a hand"): they count with a subject in front or an object, way or particle behind.
_NOUNS_TOO = """
aim back beat board break change charge circle cook cut draw drink duck dust exchange feed flood fold hand haul head hit knock land launch leave light
load mix nose pack paddle paint park pass pick pile plant play press progress ripple rock roll row sail saw set shut slow smoke spark speed stack
steer step stream surf surge swing switch tail tear tip tow track trail tuck type watch water wave wheel whip wind work wrap write zip
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
#: Verbs in -s that have an object without anything happening.
_STATIVE_S = """
wears holds has shows features contains depicts displays includes overlooks surrounds faces resembles covers fills lines forms occupies borders stands
lies sits hangs rests adorns frames is was as across towards besides
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
STATIVE_S = frozenset(_STATIVE_S.split())
