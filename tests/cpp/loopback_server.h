// SPDX-License-Identifier: Apache-2.0
// A scripted TCP server on the loopback, in a thread of its own.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>

namespace posewire {

// Listens on a free loopback port; each connection is given to serve(fd) in the server's thread.
class Server {
 public:
  explicit Server(std::function<void(Server*, int)> serve) : serve_(std::move(serve)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Server() {
    ended_.store(true);
    thread_.join();
    ::close(listener_);
  }
  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }
  bool ended() const { return ended_.load(); }

  // False when the peer went away.
  static bool say(int fd, const std::string& bytes) {
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t sent = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (sent <= 0) {
        return false;
      }
      done += static_cast<std::size_t>(sent);
    }
    return true;
  }

  // Up to the empty line behind a request's head; empty when nothing comes any more.
  std::string hear(int fd) const {
    std::string text;
    while (text.find("\r\n\r\n") == std::string::npos && !ended()) {
      pollfd entry{fd, POLLIN, 0};
      if (::poll(&entry, 1, 50) > 0) {
        char byte = 0;
        if (::recv(fd, &byte, 1, 0) <= 0) {
          return "";
        }
        text += byte;
      }
    }
    return text;
  }

  void hold(int fd) const {  // until the peer or the test ends
    pollfd entry{fd, 0, 0};
    while (!ended() && (::poll(&entry, 1, 20) == 0 || (entry.revents & (POLLHUP | POLLERR)) == 0)) {
    }
  }

 private:
  void run() {
    while (!ended()) {
      pollfd entry{listener_, POLLIN, 0};
      if (::poll(&entry, 1, 20) > 0) {
        const int fd = ::accept(listener_, nullptr, nullptr);
        serve_(this, fd);
        ::close(fd);
      }
    }
  }
  std::function<void(Server*, int)> serve_;
  std::atomic<bool> ended_{false};
  int listener_ = -1;
  unsigned port_ = 0;
  std::thread thread_;
};

}  // namespace posewire
