#include "blob_desk.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "wire/codec.h"

namespace farcall::interchange {

namespace {
constexpr blobs::Depot::Source kRelay = 1;
constexpr std::uint64_t kPiecesMax = 8 << 20;  // in one answer
constexpr std::size_t kListMax = 1000;         // likewise

// {submission: [first, last, first, last, …]}, last being one past the end
Result<ResultShelf::Tasks> tasks_from(const nlohmann::json& p) {
  ResultShelf::Tasks tasks;
  for (const auto& [text, flat] : p.items()) {
    const auto id = SubmissionId::parse(text);
    if (!id) return fail(id.error());
    auto ranges = RangeSet::from_flat(flat.get<std::vector<std::uint32_t>>());
    if (!ranges) return fail(ErrorCode::kInvalidArgument, "its ranges of {} are not sorted", text);
    tasks[*id] = std::move(*ranges);
  }
  return tasks;
}
}  // namespace

Result<std::unique_ptr<BlobDesk>> BlobDesk::open(blobs::DepotOptions options,
                                                 std::filesystem::path results,
                                                 Duration keep_results, blobs::Depot::Post post,
                                                 ToRelay to_relay, ToPilot to_pilot) {
  std::unique_ptr<BlobDesk> desk(new BlobDesk(std::move(to_relay), std::move(to_pilot)));
  auto depot = blobs::Depot::open(std::move(options), post);
  if (!depot) return fail(depot.error());
  auto kept = ResultShelf::open(std::move(results), keep_results, post);
  if (!kept) return fail(kept.error());
  desk->depot_ = std::move(*depot);
  desk->results_ = std::move(*kept);
  desk->relay_up();
  desk->relay_down();  // known, and not there yet
  return desk;
}

void BlobDesk::relay_up() {
  depot_->connect(kRelay, "", [this](const wire::Message& message) { to_relay_(message); });
}
void BlobDesk::relay_down() { depot_->disconnect(kRelay); }

// "stored.…": of the large results that lie here.
void BlobDesk::answer_stored(const wire::Message& message, const wire::Call& call) {
  const auto reply = [this, request = call.request](const Result<Bytes>& bytes) {
    if (bytes) return to_relay_(wire::make_message(wire::Reply{request, 0, ""}, {*bytes}));
    const Error& error = bytes.error();
    to_relay_(wire::make_message(
        wire::Reply{request, static_cast<std::int32_t>(error.code), error.message}));
  };
  Result<void> asked;
  try {
    asked = ask_shelf(call.method, nlohmann::json::parse(message.payload.at(0).view()), reply);
  } catch (const std::exception& error) {  // a parameter is missing or of another type
    asked = fail(ErrorCode::kInvalidArgument, "{}", error.what());
  }
  if (!asked) reply(fail(asked.error().code, "{}: {}", call.method, asked.error().message));
}

Result<void> BlobDesk::ask_shelf(const std::string& method, const nlohmann::json& p,
                                 const ResultShelf::Answer& reply) {
  if (method == "stored.list") {
    const std::size_t limit = p.at("limit").get<std::size_t>();
    results_->list(p.at("after").get<std::string>(), std::clamp<std::size_t>(limit, 1, kListMax),
                   reply);
    return {};
  }
  if (method == "stored.release" || method == "stored.forget") {
    auto tasks = tasks_from(p.at("tasks"));
    if (!tasks) return fail(tasks.error());
    if (method == "stored.release")
      results_->release(std::move(*tasks), reply);
    else
      results_->forget(std::move(*tasks), reply);
    return {};
  }
  const wire::BlobRef blob{p.at("hash").get<std::string>(), p.at("size").get<std::uint64_t>()};
  const auto task = p.at("task").get<std::string>();
  if (!wire::is_blob_hash(blob.hash))
    return fail(ErrorCode::kInvalidArgument, "\"hash\" is no hash");
  if (method == "stored.read") {
    staging::Pieces pieces = {
        p.at("offset").get<std::uint64_t>(), p.at("counts").get<std::vector<std::uint64_t>>(),
        p.at("strides").get<std::vector<std::uint64_t>>(), p.at("run").get<std::uint64_t>()};
    results_->gather(blob, std::move(pieces), kPiecesMax, reply);
    return {};
  }
  if (method != "stored.drop")
    return fail(ErrorCode::kInvalidArgument, "this interchange knows no such question");
  results_->drop(task, blob.hash, reply);
  return {};
}

bool BlobDesk::from_relay(const wire::Message& message) {
  if (message.type == wire::MessageType::kCall) {
    auto call = wire::decode<wire::Call>(message);
    if (!call || !call->method.starts_with("stored.")) return false;
    answer_stored(message, *call);
    return true;
  }
  if (message.type == wire::MessageType::kBlobGet) {
    if (auto get = wire::decode<wire::BlobGet>(message))
      results_->serve(*get, [this](const wire::Message& chunk) { to_relay_(chunk); });
    return true;
  }
  if (message.type != wire::MessageType::kBlobChunk) return false;
  if (auto chunk = wire::decode<wire::BlobChunk>(message))
    depot_->take(kRelay, *chunk, message.payload.empty() ? Bytes() : message.payload[0]);
  return true;
}

bool BlobDesk::from_pilot(PeerId peer, const wire::Message& message) {
  if (message.type == wire::MessageType::kBlobWant) {
    if (auto wanted = wire::decode<wire::BlobWant>(message))
      for (const wire::BlobRef& blob : wanted->blobs)
        if (wire::is_blob_hash(blob.hash)) want(peer, blob, wanted->damaged);
    return true;
  }
  if (message.type != wire::MessageType::kBlobGet) return false;
  if (auto get = wire::decode<wire::BlobGet>(message))
    depot_->serve("", *get, [this, peer](const wire::Message& chunk) { to_pilot_(peer, chunk); });
  return true;
}

void BlobDesk::want(PeerId peer, const wire::BlobRef& blob, bool damaged) {
  const auto answer = [this, peer, blob](const Result<void>& outcome) {
    wire::BlobState state{blob, 0, "", ""};
    if (outcome) {
      state.file = depot_->file("", blob.hash).string();
    } else {
      state.error = static_cast<std::int32_t>(outcome.error().code);
      state.text = outcome.error().message;
    }
    to_pilot_(peer, wire::make_message(state));
  };
  const auto fetch = [this, blob, answer] { depot_->fetch(kRelay, blob, answer); };
  if (!damaged) return fetch();
  // A pilot says so; whether it is the file or the pilot's view of it is found out here.
  depot_->verify(depot_->file("", blob.hash), blob, [this, blob, fetch](const Result<void>& good) {
    if (!good) {
      log_warn("{}: it is fetched again", good.error().message);
      depot_->drop("", blob.hash);
    }
    fetch();
  });
}

void BlobDesk::need(const wire::BlobRef& blob) {
  depot_->pin("", blob.hash);
  const bool room = depot_->bytes_max() == 0 || depot_->bytes() + blob.size <= depot_->bytes_max();
  if (!depot_->has("", blob.hash) && room) depot_->fetch(kRelay, blob, [](const Result<void>&) {});
}
void BlobDesk::release(const wire::BlobRef& blob) { depot_->unpin("", blob.hash); }

}  // namespace farcall::interchange
