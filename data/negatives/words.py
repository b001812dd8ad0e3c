"""Words for what no attribute column states, as data: materials, patterns, parts of an outfit, things and actions.

A caption that says "striped" is the only witness, so a word may only be replaced by one that it excludes. Each block
names the values with their spellings, and then, line by line, values that exclude each other; two values that share no
line may both be true ("printed" of a striped shirt, "cotton" of denim).
"""

from __future__ import annotations

SEASONS = """
Summer: Summer
Winter: Winter
Spring: Spring
Fall: Autumn, Fall
"""

MATERIALS = """
Leather: Leather
Suede: Suede
Canvas: Canvas
Denim: Denim
Cotton: Cotton
Linen: Linen
Silk: Silk
Satin: Satin
Velvet: Velvet
Wool: Wool, Woollen, Woolen
Fleece: Fleece
Jute: Jute
Silicone: Silicone, Silicon
"""
MATERIALS_EXCLUDE = """
Leather, Canvas, Denim, Silk, Wool, Jute
Suede, Canvas, Denim, Silk, Wool, Jute
Leather, Cotton, Jute, Silicone
Leather, Linen, Wool, Denim
Leather, Satin, Canvas, Wool, Denim
Leather, Velvet, Canvas, Denim
Leather, Fleece, Silk, Denim
Silicone, Canvas, Denim, Silk, Wool
"""

# "form | value: spellings": adjectives stand before the product ("Check Shirt"), nouns after "with".
PATTERNS = """
adjective | Solid: Solid, Plain
adjective | Striped: Striped, Stripe
adjective | Checked: Checked, Check, Checkered, Plaid
adjective | Printed: Printed
adjective | Floral: Floral
adjective | Polka Dot: Polka Dot, Polka, Dotted
noun | Striped: Stripes
noun | Checked: Checks
noun | Polka Dot: Polka Dots, Dots
"""
PATTERNS_EXCLUDE = """
Solid, Striped, Checked, Floral, Polka Dot
Solid, Printed
"""

PARTS = """
Round Neck: Round Neck, Crew Neck
V-Neck: V-Neck
U-Neck: U Neck
Boat Neck: Boat Neck
Polo Neck: Polo Neck
Turtle Neck: Turtle Neck, Turtleneck
Mandarin Collar: Mandarin Collar
Long Sleeve: Long Sleeve, Full Sleeve
Short Sleeve: Short Sleeve, Half Sleeve
Sleeveless: Sleeveless
Slim Fit: Slim Fit, Skinny Fit
Regular Fit: Regular Fit
Relaxed Fit: Relaxed Fit, Loose Fit
Low Rise: Low Rise, Low Waist
Mid Rise: Mid Rise
High Rise: High Rise, High Waist
Slip-On: Slip On
Lace-Up: Lace Up
Velcro: Velcro
Analog: Analog, Analogue
Digital: Digital
Aviator: Aviator
Wayfarer: Wayfarer
Rectangular: Rectangular
Oval: Oval
"""
PARTS_EXCLUDE = """
Round Neck, V-Neck, Polo Neck, Turtle Neck, Mandarin Collar
V-Neck, U-Neck, Polo Neck, Turtle Neck, Mandarin Collar
V-Neck, Boat Neck, Polo Neck, Turtle Neck, Mandarin Collar
Long Sleeve, Short Sleeve, Sleeveless
Slim Fit, Regular Fit, Relaxed Fit
Low Rise, Mid Rise, High Rise
Slip-On, Lace-Up
Slip-On, Velcro
Analog, Digital
Aviator, Wayfarer, Rectangular, Oval
"""

# Things that general captions are about, singular; plurals are made. "bike" may be either of two.
THINGS = """
dog: dog, puppy
cat: cat, kitten
horse: horse
cow: cow
sheep: sheep
elephant: elephant
giraffe: giraffe
zebra: zebra
bird: bird
car: car
bus: bus
truck: truck
train: train
boat: boat
airplane: airplane, plane, jet
bicycle: bicycle, bike
motorcycle: motorcycle, bike
skateboard: skateboard
surfboard: surfboard
kitchen: kitchen
bathroom: bathroom
bedroom: bedroom
office: office
beach: beach
forest: forest
street: street, road
bench: bench
chair: chair
couch: couch, sofa
bed: bed
table: table
pizza: pizza
sandwich: sandwich
cake: cake
salad: salad
donut: donut, doughnut
banana: banana
apple: apple
frisbee: frisbee
kite: kite
laptop: laptop
phone: phone
book: book
"""
THINGS_EXCLUDE = """
dog, cat, horse, cow, sheep, elephant, giraffe, zebra, bird
car, bus, truck, train, boat, airplane, bicycle, motorcycle, skateboard, surfboard
kitchen, bathroom, bedroom, office
beach, forest, street
bench, couch, bed, table
chair, bed, table
pizza, sandwich, cake, salad, donut, banana, apple
frisbee, kite, laptop, phone, book
"""

# Verbs, as lemmas; inflections are made. An onlooker takes standing for walking, and sitting for lying.
ACTIONS = """
sit: sit
stand: stand
lie: lie, lay
kneel: kneel
walk: walk
run: run
jump: jump
sleep: sleep
hold: hold
throw: throw
kick: kick
catch: catch
ride: ride
push: push
pull: pull
wash: wash
eat: eat
cook: cook
cut: cut
sell: sell
smile: smile
cry: cry
"""
ACTIONS_EXCLUDE = """
sit, stand, run, jump
sit, walk, jump
lie, stand, run, jump
lie, walk
kneel, stand, run, jump
kneel, walk
sleep, walk
sleep, stand, run, jump
hold, kick
hold, throw
throw, catch, kick
ride, push, wash
push, pull
eat, cook, sell
eat, cut
smile, cry
"""
# Who acts: of anything else "sitting" and "standing" say the same.
AGENTS = frozenset({
    "man", "woman", "boy", "girl", "person", "child", "baby", "kid", "lady", "guy", "player", "skier", "surfer",
    "skateboarder", "snowboarder", "men", "women", "boys", "girls", "people", "persons", "children", "kids", "dog",
    "cat", "horse", "cow", "sheep", "elephant", "giraffe", "zebra", "bird", "dogs", "cats", "horses", "cows",
    "elephants", "giraffes",
    "zebras", "birds", "he", "she", "they", "who",
})  # fmt: skip


def spellings(block: str) -> list[tuple[str, str, str]]:
    """(form, value, spelling) of each spelling in a block; the form is "" where none is given."""
    found = []
    for line in block.strip().splitlines():
        form, _, rest = line.rpartition(" | ")
        value, names = rest.split(": ")
        found += [(form, value, name) for name in names.split(", ")]
    return found


def rows(block: str) -> list[frozenset[str]]:
    """The values on each line of a block."""
    return [frozenset(line.split(", ")) for line in block.strip().splitlines()]
