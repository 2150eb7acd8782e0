"""What a change does to a model: two revisions of a project, held against each other, and whether it may be merged.

- `plumbline.review.revision`: what a revision's line made, as the comparison reads it.
- `plumbline.review.changes`: the rows of the comparison, and the verdict of each.
- `plumbline.review.gates`: what params.yaml demands of them.
- `plumbline.review.review`: all of it together, as JSON that a trusted poster may read from an untrusted run.
- `plumbline.review.comment`, `pictures`, `page`: for people.
"""
