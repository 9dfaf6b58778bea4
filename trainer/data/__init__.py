# SPDX-License-Identifier: Apache-2.0
"""Pictures and labels: COCO-format data sets, augmentation, the loader, a teacher's opinions."""
