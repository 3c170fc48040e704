#include "addresses.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/files.h"

namespace farcall::interchange {

namespace {

struct Interface {
  std::string name, address;
  bool loopback = false;
};

Result<std::vector<Interface>> interfaces() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0)
    return fail(ErrorCode::kIo, "cannot list the addresses of this host: {}", std::strerror(errno));
  std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, freeifaddrs);
  std::vector<Interface> found;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET ||
        (entry->ifa_flags & IFF_UP) == 0)
      continue;
    char text[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr, text,
              sizeof text);
    found.push_back({entry->ifa_name, text, (entry->ifa_flags & IFF_LOOPBACK) != 0});
  }
  return found;
}

// The one a packet to the internet would leave by; none is sent.
Result<std::string> address_of_default_route() {
  sockaddr_in far{};
  far.sin_family = AF_INET;
  far.sin_port = htons(53);
  inet_pton(AF_INET, "192.0.2.1", &far.sin_addr);
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in near{};
  socklen_t size = sizeof near;
  const bool found = fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&far), sizeof far) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&near), &size) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!found)
    return fail(ErrorCode::kConfig,
                "'engine.address' is address_by_route, and this host has no default route: {}",
                std::strerror(error));
  char text[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &near.sin_addr, text, sizeof text);
  return std::string(text);
}

}  // namespace

Result<std::vector<std::string>> reachable_addresses(const std::vector<std::string>& wanted,
                                                     const std::string& port) {
  auto all = interfaces();
  if (!all) return fail(all.error());
  std::vector<std::string> result;
  auto add = [&](const std::string& host) { result.push_back("tcp://" + host + ":" + port); };
  if (wanted.empty()) {
    for (const Interface& i : *all)
      if (!i.loopback) add(i.address);
    for (const Interface& i : *all)
      if (i.loopback) add(i.address);
    return result;
  }
  for (const std::string& word : wanted) {
    if (word == "address_by_hostname") {
      add(host_name());
      continue;
    }
    if (word == "address_by_route") {
      auto address = address_of_default_route();
      if (!address) return fail(address.error());
      add(*address);
      continue;
    }
    bool is_interface = false;
    std::string names;
    for (const Interface& i : *all) {
      names += (names.empty() ? "" : ", ") + i.name;
      if (i.name == word) {
        add(i.address);
        is_interface = true;
      }
    }
    if (is_interface) continue;
    // A word without a dot that is no interface is more likely a mistyped one than a host name,
    // unless it resolves, which is the pilot's business.
    if (word.find('.') == std::string::npos && word != "localhost" &&
        word.find_first_of("0123456789") != std::string::npos)
      return fail(ErrorCode::kConfig,
                  "'engine.address' names '{}': this host has the interfaces {}", word, names);
    add(word);
  }
  return result;
}

}  // namespace farcall::interchange
