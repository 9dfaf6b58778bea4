// SPDX-License-Identifier: Apache-2.0
// Link allocations.cpp into a test to count its heap allocations.
#pragma once

namespace posewire::test {
long allocations();  // operator new calls of all threads since the start
}  // namespace posewire::test
