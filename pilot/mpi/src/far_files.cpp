#include "pilot/mpi/far_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pilot/runners/runner.h"
#include "wire/blob_payload.h"
#include "wire/blobs.h"

namespace farcall::pilot {

using nlohmann::json;

std::vector<std::string> only_here(const Assignment& work, const std::filesystem::path& scratch) {
  std::vector<std::string> found;
  if (!spans_nodes(work)) return found;
  for (const auto& [hash, file] : work.blobs)
    if (file.starts_with(scratch.string() + "/")) found.push_back(hash);
  return found;
}

Bytes copying_what_is_only_here(const Assignment& work, const std::filesystem::path& scratch) {
  const std::vector<std::string> here = only_here(work, scratch);
  const std::string_view bytes = work.arguments.view();
  if (here.empty() || !bytes.starts_with('B')) return work.arguments;
  const auto refs = wire::blob_refs(bytes);
  if (!refs) return work.arguments;
  const auto split = wire::blob_places(bytes);
  json places = split ? json::parse(split->places, nullptr, false) : json();
  if (!places.is_array()) return work.arguments;
  for (json& place : places) {
    const bool file = place.is_array() && place.size() == 3 && place[2].is_object();
    if (!file || !place[0].is_number_unsigned() || !place[2].contains("file")) continue;
    const auto number = place[0].get<std::size_t>();
    if (number < refs->size() &&
        std::find(here.begin(), here.end(), (*refs)[number].hash) != here.end())
      place[2]["copy"] = true;
  }
  return Bytes(wire::pack_blob_payload(*refs, places.dump(), split->rest));
}

}  // namespace farcall::pilot
