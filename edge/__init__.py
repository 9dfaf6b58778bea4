# SPDX-License-Identifier: Apache-2.0
"""The daemon: cameras in, poses out over MQTT; daemon.py puts it together."""
