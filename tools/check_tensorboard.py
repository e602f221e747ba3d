"""Reads a folder of TensorBoard events with TensorBoard's own reader and prints what is in it.

    python tools/check_tensorboard.py data/RUN/log

One line per tag: its kind, points, first and last step, last value. Exit code 1 where there are no events, 3 where the
package `tensorboard` is not installed.
"""

import sys

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    print("the Python package `tensorboard` is not installed")
    sys.exit(3)


def main(folder):
    everything = {"scalars": 0, "histograms": 0, "tensors": 0, "images": 0}
    events = EventAccumulator(folder, size_guidance=everything)
    events.Reload()
    tags = events.Tags()
    for tag in tags["scalars"]:
        points = events.Scalars(tag)
        print(f"scalar {tag} {len(points)} {points[0].step} {points[-1].step} {points[-1].value:.9g}")
    for tag in tags["histograms"]:
        points = events.Histograms(tag)
        last = points[-1].histogram_value
        print(f"histogram {tag} {len(points)} {points[0].step} {points[-1].step} {sum(last.bucket):.9g}")
    for tag in tags["tensors"]:
        points = events.Tensors(tag)
        text = points[-1].tensor_proto.string_val
        print(f"text {tag} {len(points)} {points[0].step} {points[-1].step} {len(text[0]) if text else 0}")
    if not any(tags[kind] for kind in ("scalars", "histograms", "tensors")):
        print(f"no events in {folder}")
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__)
        sys.exit(2)
    sys.exit(main(sys.argv[1]))
