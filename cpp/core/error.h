// SPDX-License-Identifier: Apache-2.0
// Two ways to fail, never mixed: opening throws Error, running returns Status.
// Codes are the program's exit codes (sysexits.h where it has one), the same in Python
// (posewire/errors.py).
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace posewire {

enum class Code : int {
  kOk = 0,
  kNo = 1,            // it ran and the answer is no
  kUsage = 64,        // wrong call
  kBundle = 65,       // a bundle is missing, damaged, tampered with or of another schema
  kSource = 66,       // a source or data file is missing or unreadable
  kUnavailable = 69,  // device, runtime or broker is not there
  kBug = 70,          // our fault
  kCannotWrite = 73,
  kConfig = 78,
};

// Thrown while opening. what() is one line: "<where>: <what>".
class Error : public std::runtime_error {
 public:
  Error(Code code, std::string where, const std::string& what)
      : std::runtime_error(where.empty() ? what : where + ": " + what),
        code_(code),
        where_(std::move(where)) {}

  Code code() const noexcept { return code_; }
  const std::string& where() const noexcept { return where_; }  // file, key, camera, operator …

 private:
  Code code_;
  std::string where_;
};

// Returned while running. A default Status is success and allocates nothing.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string what) : code_(code), what_(std::move(what)) {}

  bool ok() const noexcept { return code_ == Code::kOk; }
  Code code() const noexcept { return code_; }
  const std::string& what() const noexcept { return what_; }

 private:
  Code code_ = Code::kOk;
  std::string what_;
};

}  // namespace posewire
