"""The paper's tables (`facedan table`): train what is missing, measure every model, summarise over seeds.

`runs` plans the trainings of each row, `fill` carries them out and evaluates, `result` summarises, `formats` writes
Markdown, LaTeX and CSV, `reported` holds the values that the paper reports.
"""
