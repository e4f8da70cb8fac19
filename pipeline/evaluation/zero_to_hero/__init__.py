"""What Zero-to-Hero is worth and what it costs: rows of the ablation, sampling of pairs, tuning, reports, timing.

Protocol. Every mesh of the folders is photographed as in :mod:`.pairs`, at the model's image size; 12 ordered pairs of
cameras an object, 3 or 6 where time is short, or all 56. The true camera of the source is given. Scores are means over
an object's pairs, then over objects, with 95 % bootstrap intervals over objects; gains are those over the base row on
the same pairs. ``foreground_psnr`` and ``iou`` are those of :func:`scene.metrics.view_scores`, ``iou_white`` compares
pixels with a channel below a threshold on white, as the paper does. NFE counts passes of the loop; guidance and source
rows are not counted. Values are tuned on the pool's val split only, by foreground PSNR and a fifth of a decibel for
every point of IoU, which is about how the paper's gains go together. Rows of the bound keep the model's own
low-frequency colours, and count gains over 25 plain steps that do so too.
"""
