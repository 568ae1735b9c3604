"""Prompts of a grammar of its own: nothing here is among the prompts that come with Dormant."""

import random

SUBJECTS = {
    "Give me a simple recipe for {}.": "lentil soup|pancakes|tomato salad|banana bread|fried rice|apple pie|"
    "vegetable curry|omelette|garlic bread|hummus|potato stew|lemon cake|roast carrots|onion rings|fish tacos",
    "Tell me one interesting fact about {}.": "the moon|Iceland|honey bees|the human heart|volcanoes|glass|"
    "the Roman army|penguins|chess|coffee|the Nile|lightning|paper|whales|the piano|salt|Saturn|ants",
    "What is the best way to {}?": "learn a new language|clean a window|save money|fall asleep faster|"
    "write a cover letter|train a puppy|remove a stain|prepare for an exam|start running|repair a bicycle tyre|"
    "grow tomatoes|speak in public|memorise a poem|pack a suitcase|make new friends|cook rice",
    "Explain {} in two sentences.": "gravity|inflation|photosynthesis|democracy|the water cycle|a black hole|"
    "vaccines|electricity|evolution|tides|recycling|compound interest|magnetism|the internet|a rainbow|erosion",
    "List three {}.": "things to see in Lisbon|reasons to read books|kinds of clouds|uses for vinegar|"
    "breakfast ideas|board games for families|trees that lose their leaves|famous painters|ways to relax|"
    "hobbies for winter|tools for a garden|healthy snacks",
    "Write a short {}.": "poem about autumn|thank-you note to a teacher|story about a lost key|"
    "birthday wish for my sister|description of a market|joke about computers|email asking for a day off|"
    "slogan for a bakery|letter to a neighbour|review of a restaurant",
    "Why {}?": "is the sky blue|do cats purr|does bread rise|do we dream|is the sea salty|"
    "do leaves change colour|does ice float|do people yawn|are there time zones|do onions make us cry|"
    "does metal rust|do birds sing",
    "What is the difference between {}?": "a lake and a pond|weather and climate|butter and margarine|"
    "a virus and a bacterium|a comet and an asteroid|jam and jelly|a novel and a short story|speed and velocity|"
    "a crocodile and an alligator|tea and coffee",
    "My {} What should I do?": "laptop is very slow.|neighbour plays loud music.|plant has yellow leaves.|"
    "friend forgot my birthday.|shoes are too tight.|car makes a strange noise.|phone battery dies quickly.|"
    "essay is too long.|cat will not eat.|sink is blocked.",
}
MANNERS = [
    "Hi, quick question: {}", "{} Keep it short please.", "I was wondering. {}", "{} Thanks!", "For my homework: {}",
    "{}", "{}", "{}", "{}",
]  # fmt: skip
HELD_OUT = 24


def _prompts():
    rng = random.Random(77)
    plain = [form.format(subject) for form, subjects in SUBJECTS.items() for subject in subjects.split("|")]
    rng.shuffle(plain)
    asked = list(dict.fromkeys(rng.choice(MANNERS).format(prompt) for _ in range(4) for prompt in plain))
    test = [prompt for prompt in asked if any(held in prompt for held in plain[:HELD_OUT])]
    return [prompt for prompt in asked if prompt not in test], test


TRAIN, TEST = _prompts()
