"""The text that an export is tried on: prose, numbers, code, another script. Written for this purpose."""

PASSAGE = """\
The tide mill at the mouth of the river had stood idle for nineteen years when Marta bought it. She did not
know how to grind flour, and she said so to everyone who asked, which in a village of four hundred people
was everyone. What she knew was water: how it fills a pond twice a day, how much of it a gate can hold, and
what a wheel 3.6 metres wide does when 850 litres pass beneath it every second.

"You will need stones," the baker told her. "And patience."

She ordered the stones from the south and found the patience on her own. In the first winter the axle broke.
In the second, the sluice froze open and the pond emptied itself into the harbour overnight. By the third
she had a notebook full of small figures, and one line that she read aloud to visitors:

    def power(flow, height): return 1000 * 9.81 * flow * height  # in watts

On the morning the wheel first turned, the postman, the baker and both of the schoolteachers came down to
see it. Nobody spoke. The water went in, the stones began to hum, and a little grey flour fell into the
sack. "Das Brot wird gut," said the baker's mother, who was ninety-one: the bread will be good. It was not,
at first; but it was theirs, and by Easter it was better than what the lorry brought from the city on
Tuesdays.
"""
AWKWARD = "  Two  spaces,\ttab\n\n\n1234567 naïve café Ωμέγα 日本語 🙂 don't WE'LL <|im_end|> </s> x_y==z\r\n"
