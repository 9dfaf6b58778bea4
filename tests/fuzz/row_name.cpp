// SPDX-License-Identifier: Apache-2.0
// The row that fuzz_row.cpp, compiled once, fuzzes in this target.
extern const char* const kRowName;
const char* const kRowName = POSEWIRE_ROW;
