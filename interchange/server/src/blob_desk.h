// The endpoint's blobs: fetched from the relay once, kept in its directory under a limit, told of
// and handed out to its pilots.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "blobs/depot.h"
#include "interchange/core/effects.h"
#include "result_shelf.h"
#include "wire/messages.h"

namespace farcall::interchange {

// On the loop's thread.
class BlobDesk {
 public:
  using ToRelay = std::function<void(const wire::Message&)>;
  using ToPilot = std::function<void(PeerId, const wire::Message&)>;
  // `results`: where workers leave large ones, which stay until they are released or older than
  // `keep_results`.
  static Result<std::unique_ptr<BlobDesk>> open(blobs::DepotOptions options,
                                                std::filesystem::path results,
                                                Duration keep_results, blobs::Depot::Post post,
                                                ToRelay to_relay, ToPilot to_pilot);

  void relay_up();
  void relay_down();
  // True: it was about blobs and has been dealt with.
  bool from_relay(const wire::Message& message);
  // True: it was about blobs and has been dealt with.
  bool from_pilot(PeerId peer, const wire::Message& message);

  // Tasks here need it: it stays, and comes at once while there is room for it.
  void need(const wire::BlobRef& blob);
  void release(const wire::BlobRef& blob);
  void expire_results() { results_->expire(); }

 private:
  BlobDesk(ToRelay to_relay, ToPilot to_pilot)
      : to_relay_(std::move(to_relay)), to_pilot_(std::move(to_pilot)) {}
  void answer_stored(const wire::Message& message, const wire::Call& call);
  Result<void> ask_shelf(const std::string& method, const nlohmann::json& p,
                         const ResultShelf::Answer& reply);
  void want(PeerId peer, const wire::BlobRef& blob, bool damaged);

  ToRelay to_relay_;
  ToPilot to_pilot_;
  std::unique_ptr<blobs::Depot> depot_;
  std::unique_ptr<ResultShelf> results_;
};

}  // namespace farcall::interchange
