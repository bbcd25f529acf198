# SPDX-License-Identifier: MIT OR Apache-2.0
"""What scripts/check is made of."""
