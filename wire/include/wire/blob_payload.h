// What stands in a payload of form 'B' (docs/payloads.md) after its list of blobs, for the two ends
// of its way. Pure.
#pragma once

#include <string_view>

#include "base/error.h"

namespace farcall::wire {

struct BlobPlaces {
  std::string_view places;  // JSON: which blob belongs where
  std::string_view rest;    // a payload of another form
};
// REQUIRES: blob_refs() reads it. kCorrupt: it ends before it says that.
Result<BlobPlaces> blob_places(std::string_view payload);

}  // namespace farcall::wire
