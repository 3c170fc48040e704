#include "addresses.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>
#include <memory>

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
