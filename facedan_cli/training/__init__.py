"""Both stages of training (`facedan pretrain`, `facedan adapt`).

`pretrain` and `adapt` plan a run; `session` locks it and joins the processes; `loop` takes the steps, whose loss and
gradient `step` computes; `state` and `log` write the files for resuming. `held_out` and `domain_test` measure on images
that no training sees; `selection` chooses a method and its strength without target labels (`--select`), by `criterion`.
"""
