"""Held-out English texts: a tuned model whose loss on them rises is forgetting (small: only texts).

The passages were written for this purpose and belong to the package (Apache-2.0), except for the two marked
with author and year, which are in the public domain.
"""

PASSAGES = (
    # Lewis Carroll, Alice's Adventures in Wonderland, 1865
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to "
    "do: once or twice she had peeped into the book her sister was reading, but it had no pictures or "
    "conversations in it, “and what is the use of a book,” thought Alice “without pictures or "
    "conversations?”\n\n"
    "So she was considering in her own mind (as well as she could, for the hot day made her feel very "
    "sleepy and stupid), whether the pleasure of making a daisy-chain would be worth the trouble of "
    "getting up and picking the daisies, when suddenly a White Rabbit with pink eyes ran close by her.",
    # Abraham Lincoln, address at Gettysburg, 1863
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived "
    "in Liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in a "
    "great civil war, testing whether that nation, or any nation so conceived and so dedicated, can long "
    "endure.",
    # Our own
    "The heart pumps blood through the body in two loops. The right side sends it to the lungs, where it "
    "takes up oxygen and gives off carbon dioxide; the left side sends it to everything else. In an adult "
    "at rest the heart beats about seventy times a minute and moves around five litres of blood in that "
    "time. During hard exercise the flow can rise to four times as much.",
    "To cook rice, rinse one cup of it under cold water until the water runs clear. Put it into a pot with "
    "two cups of water and a pinch of salt, and bring it to a boil. Then cover the pot, turn the heat down "
    "low, and wait for eighteen minutes without lifting the lid. Take the pot off the heat, let it stand "
    "for five minutes more, and loosen the grains with a fork.",
    "Question: Why is the sky blue?\n\n"
    "Answer: Sunlight is a mixture of all colours. When it passes through the air, the molecules scatter "
    "short waves far more than long ones, so blue light reaches our eyes from every direction of the sky. "
    "At sunset the light has a longer way through the air; most of the blue is scattered out of it, and "
    "what is left looks red.",
    "def average(numbers):\n"
    '    """Return the mean of a list of numbers."""\n'
    "    if not numbers:\n"
    '        raise ValueError("the list is empty")\n'
    "    total = 0\n"
    "    for number in numbers:\n"
    "        total += number\n"
    "    return total / len(numbers)\n\n\n"
    'if __name__ == "__main__":\n'
    "    print(average([1, 2, 3, 4]))\n",
    "Dear Ms Hall,\n\n"
    "Thank you for your letter of 3 March. I am sorry that the two chairs reached you with scratches on "
    "their legs. We will send new ones this week, free of charge, and the driver will take the old ones "
    "back. If Thursday morning does not suit you, please call us and we will find another day.\n\n"
    "Yours sincerely,\n"
    "Peter Lang",
    "The town lies where two rivers meet. For centuries barges brought timber and salt to its quays, and "
    "the merchants who traded in them built the tall brick houses that still stand around the market. When "
    "the railway came in 1871 it followed the other bank, and within a generation the port was quiet. "
    "Today most people work in the hospital, the paper mill or the university, which was founded in 1974.",
)
