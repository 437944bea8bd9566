"""Tools for a class: files of answers, their marks, and the teacher's edition.

answers = LearnerFile.read(Path("me.json"))     # a learner's guesses, written by `pophood talk --answers`
marks(folder, lm)                              # a table of a class's files, judged by the model
edition_html(course, lm)                       # answers, notes and plans of lessons as one page
"""

from __future__ import annotations

from pophood.course.classroom.answer_file import LearnerFile as LearnerFile
from pophood.course.classroom.edition import edition_html as edition_html
from pophood.course.classroom.marking import Marking as Marking
from pophood.course.classroom.marking import marks as marks
