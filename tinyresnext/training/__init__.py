"""Train a network: recipe and data set in, model out.

Read `train` first: the loop is there. `recipes` says what decides a run, `setting` what is refused,
`run` what each line of the loop does, `optimisers` how weights change, and `record` what a run
leaves on disk, so that it resumes to the same bits. `trial` tries a run before it begins. `initial`
draws the first weights, `weights` holds them in one array, and `samples` makes what a step sees.
"""
