#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Poses over MQTT, once all the way: a private broker, the daemon with the shipped reference bundle, a subscriber.
#   bash scripts/demo.sh                    the shipped clip
#   bash scripts/demo.sh clip.mp4           any video, folder of pictures, v4l2:/dev/video0, rtsp://…, synthetic:?people=5
#   bash scripts/demo.sh --bundle DIR …     another bundle than the one in models/
# Leaves demo-out/poses.jsonl, annotated.mp4 and frames.png. Ctrl-C ends it; cameras run until then.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$repository/scripts/setup.sh"
export PYTHONSAFEPATH=1 # the folder posewire/ of the working directory must not shadow the package
exec "$repository/.venv/bin/python" "$repository/scripts/demo.py" "$@"
