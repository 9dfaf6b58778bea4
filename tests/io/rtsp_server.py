# SPDX-License-Identifier: Apache-2.0
"""A real RTSP server for tests/cpp/io_stream_test.cpp, on a free loopback port.

    /usr/bin/python3 rtsp_server.py CLIP.mp4

``/cam`` is an endless moving picture in MJPEG, ``/clip`` the H.264 of CLIP.mp4, once for each
client. Prints "port <n>" when it listens; ends when its standard input is closed. Exit code 77,
with the reason on stderr: something is not installed here (gir1.2-gst-rtsp-server-1.0, python3-gi).
"""

import sys

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
except (ImportError, ValueError) as error:
    print(f"no GStreamer RTSP server here: {error}", file=sys.stderr)
    sys.exit(77)

CAM = (
    "( videotestsrc is-live=true pattern=ball"
    " ! video/x-raw,format=I420,width=320,height=240,framerate=25/1"
    " ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)
CLIP = (
    '( filesrc location="{}" ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )'
)
ELEMENTS = (
    "filesrc",
    "h264parse",
    "jpegenc",
    "qtdemux",
    "rtph264pay",
    "rtpjpegpay",
    "videotestsrc",
)


def main(clip: str) -> int:
    """Serve until standard input ends."""
    Gst.init(None)
    missing = [name for name in ELEMENTS if not Gst.ElementFactory.find(name)]
    if missing:
        print(f"GStreamer has no {', '.join(missing)} here", file=sys.stderr)
        return 77
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    for path, launch, shared in (("/cam", CAM, True), ("/clip", CLIP.format(clip), False)):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(launch)
        factory.set_shared(shared)
        server.get_mount_points().add_factory(path, factory)
    server.attach(None)
    loop = GLib.MainLoop()
    GLib.io_add_watch(
        GLib.IOChannel.unix_new(0),
        GLib.PRIORITY_DEFAULT,
        GLib.IOCondition.IN | GLib.IOCondition.HUP,
        lambda *_: loop.quit(),
    )
    print(f"port {server.get_bound_port()}", flush=True)
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
