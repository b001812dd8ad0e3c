"""The values that catalogs are known to use, as data. A value outside is a warning, never a refusal: shops grow."""

from __future__ import annotations

# fmt: off
GENDERS = ("Men", "Women", "Boys", "Girls", "Unisex")
SEASONS = ("Spring", "Summer", "Fall", "Winter")
USAGES = ("Casual", "Ethnic", "Formal", "Party", "Smart Casual", "Sports", "Travel")
MASTER_CATEGORIES = ("Accessories", "Apparel", "Footwear", "Free Items", "Personal Care", "Sporting Goods")
SUB_CATEGORIES = (
    "Accessories", "Apparel Set", "Bags", "Bath and Body", "Belts", "Bottomwear", "Cufflinks", "Dress", "Eyes",
    "Eyewear", "Flip Flops", "Fragrance", "Free Gifts", "Gloves", "Hair", "Headwear", "Innerwear", "Jewellery",
    "Lips", "Loungewear and Nightwear", "Makeup", "Mufflers", "Nails", "Perfumes", "Sandal", "Saree", "Scarves",
    "Shoe Accessories", "Shoes", "Skin", "Skin Care", "Socks", "Sports Accessories", "Sports Equipment", "Stoles",
    "Ties", "Topwear", "Umbrellas", "Wallets", "Watches", "Water Bottle", "Wristbands",
)
ARTICLE_TYPES = (
    "Accessory Gift Set", "Baby Dolls", "Backpacks", "Bangle", "Basketballs", "Bath Robe", "Belts", "Blazers",
    "Body Lotion", "Booties", "Boxers", "Bra", "Bracelet", "Briefs", "Camisoles", "Capris", "Caps", "Casual Shoes",
    "Churidar", "Clutches", "Compact", "Concealer", "Cufflinks", "Deodorant", "Dresses", "Duffel Bag", "Dupatta",
    "Earrings", "Eye Cream", "Eyeshadow", "Face Moisturisers", "Face Serum and Gel", "Face Wash and Cleanser",
    "Flats", "Flip Flops", "Footballs", "Formal Shoes", "Foundation and Primer", "Fragrance Gift Set", "Free Gifts",
    "Gloves", "Hair Colour", "Handbags", "Headband", "Heels", "Highlighter and Blush", "Innerwear Vests", "Jackets",
    "Jeans", "Jeggings", "Jewellery Set", "Jumpsuit", "Kajal and Eyeliner", "Kurta Sets", "Kurtas", "Kurtis",
    "Laptop Bag", "Leggings", "Lip Care", "Lip Gloss", "Lip Liner", "Lip Plumper", "Lipstick", "Lounge Pants",
    "Lounge Shorts", "Makeup Remover", "Mascara", "Mask and Peel", "Messenger Bag", "Mobile Pouch", "Mufflers",
    "Nail Essentials", "Nail Polish", "Necklace and Chains", "Night suits", "Nightdress", "Patiala", "Pendant",
    "Perfume and Body Mist", "Rain Jacket", "Ring", "Robe", "Rompers", "Rucksacks", "Salwar", "Salwar and Dupatta",
    "Sandals", "Sarees", "Scarves", "Shapewear", "Shirts", "Shoe Accessories", "Shorts", "Shrug", "Skirts", "Socks",
    "Sports Sandals", "Sports Shoes", "Stockings", "Stoles", "Suits", "Sunglasses", "Sunscreen", "Suspenders",
    "Sweaters", "Sweatshirts", "Swimwear", "Ties", "Ties and Cufflinks", "Tights", "Toner", "Tops", "Track Pants",
    "Tracksuits", "Travel Accessory", "Trolley Bag", "Trousers", "Trunk", "Tshirts", "Tunics", "Umbrellas",
    "Waist Pouch", "Waistcoat", "Wallets", "Watches", "Water Bottle", "Wristbands",
)
COLOURS = (
    "Beige", "Black", "Blue", "Bronze", "Brown", "Burgundy", "Charcoal", "Coffee Brown", "Copper", "Cream",
    "Fluorescent Green", "Gold", "Green", "Grey", "Grey Melange", "Khaki", "Lavender", "Lime Green", "Magenta",
    "Maroon", "Mauve", "Metallic", "Multi", "Mushroom Brown", "Mustard", "Navy Blue", "Nude", "Off White", "Olive",
    "Orange", "Peach", "Pink", "Purple", "Red", "Rose", "Rust", "Sea Green", "Silver", "Skin", "Steel", "Tan",
    "Taupe", "Teal", "Turquoise Blue", "White", "Yellow",
)
# fmt: on

# Colours that one may fairly take for another share a family: a "navy" title fits the colour `Blue`, a "khaki" one
# `Brown` or `Green`. These are all the words of a title that name a colour, in lower case.
COLOUR_FAMILIES = {
    "black": ("black", "charcoal"),
    "white": ("white", "off white", "offwhite", "cream"),
    "grey": ("grey", "grey melange", "charcoal", "silver", "steel", "metallic"),
    "metal": ("silver", "gold", "golden", "steel", "metallic", "bronze", "copper"),
    "blue": ("blue", "navy blue", "navy", "turquoise blue", "teal"),
    "green": ("green", "olive", "khaki", "sea green", "lime green", "fluorescent green", "teal"),
    "brown": ("brown", "coffee brown", "mushroom brown", "tan", "khaki", "taupe", "bronze", "copper", "rust", "beige",
              "nude"),
    "beige": ("beige", "cream", "nude", "skin", "tan", "khaki", "off white", "offwhite", "taupe"),
    "red": ("red", "maroon", "burgundy", "rust"),
    "pink": ("pink", "peach", "rose", "magenta", "mauve"),
    "purple": ("purple", "lavender", "magenta", "mauve", "burgundy"),
    "orange": ("orange", "peach", "rust"),
    "yellow": ("yellow", "mustard", "gold", "golden"),
}  # fmt: skip
# In a title these are as often a brand, a scent, a material or a body part.
AMBIGUOUS_COLOURS = ("rose", "skin", "steel", "metallic", "nude", "gold", "golden", "rust", "copper", "tan", "bronze")
