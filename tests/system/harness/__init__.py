# SPDX-License-Identifier: Apache-2.0
"""What the system tests share: clusters of real processes, load whose every outcome is recorded, and the verdict."""
