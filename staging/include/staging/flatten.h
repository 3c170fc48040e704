// A nested value as named arrays, the way it lies in a file: dicts are folders, a list of numbers
// that is rectangular is an array, a number an array of one element. Pure.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "staging/value.h"

namespace farcall::staging {

struct Leaf {
  std::string path;  // "field", "fit/slope"; each part is a name that HDF5 takes
  Array array;       // unless it is text
  bool text = false;
  std::vector<std::string> texts;            // in C order, when text
  std::shared_ptr<const std::string> owned;  // behind array.data, when it is not the payload

  const std::vector<std::uint64_t>& shape() const { return array.shape; }
  // Leaves with the same signature can be stacked: "<f8[32,32]", "text[]".
  std::string signature() const;
};

struct Flat {
  std::vector<Leaf> leaves;
  std::vector<std::pair<std::string, std::string_view>> binaries;  // by path
  bool opaque = false;  // something in it can be read by Python only
};

// `root`: the path of a value that is no dict, and the folder of one that is ("": the top).
Flat flatten(const Value& value, const std::string& root);
// A name within a path: '/' and a lone '.' cannot stand in one; they and '%' become %2F, %2E, %25.
std::string path_part(std::string_view name);

}  // namespace farcall::staging
