# SPDX-License-Identifier: Apache-2.0
"""Trains pose networks with Keras 3 and exports them as portable bundles. Keras lives only here."""
