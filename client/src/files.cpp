#include "farcall/files.h"

#include <nlohmann/json.hpp>

#include "wire/blob_payload.h"
#include "wire/blobs.h"

namespace farcall {

using nlohmann::json;

Bytes arguments_with_files(const std::vector<TaskFile>& files, std::string_view arguments) {
  std::vector<wire::BlobRef> blobs;
  json places = json::array();
  for (const TaskFile& file : files) {
    json what = {{"file", file.name}, {"mode", file.mode}};
    if (file.tree) what["tree"] = true;
    places.push_back({blobs.size(), file.name, std::move(what)});
    blobs.push_back({file.hash, file.size});
  }
  return Bytes(wire::pack_blob_payload(blobs, places.dump(), arguments));
}

Result<ResultParts> result_parts(std::string_view data) {
  ResultParts parts;
  parts.rest = data;
  auto refs = wire::blob_refs(data);
  if (!refs) return fail(refs.error());
  if (refs->empty()) return parts;
  auto places = wire::blob_places(data);
  if (!places) return fail(places.error());
  parts.rest = places->rest;
  try {
    for (const json& place : json::parse(places->places)) {
      const wire::BlobRef& blob = refs->at(place.at(0).get<std::size_t>());
      TaskFile file{"", blob.hash, blob.size, 0644, false};
      if (place.at(1).is_null()) {
        parts.value = file;
      } else {
        const json& what = place.at(2);
        file.name = what.at("file").get<std::string>();
        file.mode = what.value("mode", file.mode);
        file.tree = what.value("tree", false);
        parts.files.push_back(std::move(file));
      }
    }
  } catch (const std::exception& error) {
    return fail(ErrorCode::kCorrupt, "a result refers to blobs in a way that cannot be read: {}",
                error.what());
  }
  return parts;
}

}  // namespace farcall
