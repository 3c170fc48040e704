// Questions and administration: users, endpoints, functions. docs/protocol.md lists the methods.
#include <nlohmann/json.hpp>

#include "base/keys.h"
#include "base/log.h"
#include "send.h"

namespace farcall::relay {

using nlohmann::json;

namespace {
bool keeps_something(const std::string& method) {
  return method == "invite" || method == "endpoint.register" || method == "endpoint.delete" ||
         method == "task.cancel";
}
}  // namespace

void Core::Impl::call(Peer& peer, const wire::Call& m, const wire::Message& raw) {
  json parameters = json::object();
  if (!raw.payload.empty() && !raw.payload[0].empty())
    parameters = json::parse(raw.payload[0].view(), nullptr, false);
  if (!parameters.is_object())
    return reply_error(peer.id, m.request,
                       {ErrorCode::kInvalidArgument,
                        fmt::format("{}: the parameters are no JSON object", m.method)});
  if (stuck_ && keeps_something(m.method)) return reply_error(peer.id, m.request, *stuck_);
  Result<json> result = fail(ErrorCode::kInternal, "no answer");
  const std::size_t written = effects_.writes.size();
  try {
    result = answer(peer, m.request, m.method, parameters);
  } catch (const json::exception& error) {  // a parameter of another type than it should have
    result = fail(ErrorCode::kInvalidArgument, "{}: {}", m.method, error.what());
  }
  if (!result)
    reply_error(peer.id, m.request, result.error());
  else if (stuck_ && !result->is_null() && effects_.writes.size() == written)
    reply(peer.id, m.request, *result);  // who only asks does not wait for the disk
  else if (!result->is_null())           // null: the answer comes by itself
    reply_later(peer.id, m.request, result->dump(-1, ' ', false, json::error_handler_t::replace));
}

Result<json> Core::Impl::answer(Peer& peer, std::uint64_t request, const std::string& method,
                                const json& p) {
  if (method == "whoami")
    return json{{"user", peer.user},
                {"key", peer.key},
                {"owner", user_keys_[peer.key].owner},
                {"relay", options_.software},
                {"software", options_.software},
                {"address", options_.address},
                {"server_key", options_.server_key},
                {"generation", generation_},
                {"store_error", stuck_ ? stuck_->message : ""},
                {"time_ms", wall_ms()}};
  if (method == "invite") return invite(peer, p);
  if (method == "endpoint.register") return endpoint_register(peer, p);
  if (method == "endpoint.delete") return endpoint_delete(peer, p);
  if (method == "endpoint.status") {
    auto e = endpoint_param(peer.user, p);
    if (!e) return fail(e.error());
    return endpoint_json(**e);
  }
  if (method == "endpoint.drain" || method == "endpoint.resume") {
    auto e = endpoint_param(peer.user, p);
    if (!e) return fail(e.error());
    call_endpoint(**e, method.substr(sizeof "endpoint." - 1), "{}",
                  [this, id = peer.id, request](Result<Bytes> answer) {
                    if (find_peer(id) == nullptr) return;
                    if (answer)
                      reply(id, request, json::object());
                    else
                      reply_error(id, request, answer.error());
                  });
    return json();
  }
  if (method == "endpoint.list") {
    json list = json::array();
    for (const auto& [id, e] : endpoints_)
      if (e.record.user == peer.user) list.push_back(endpoint_json(e));
    return json{{"endpoints", list}};
  }
  if (method.starts_with("function.")) return answer_about_functions(peer, request, method, p);
  return answer_about_tasks(peer, request, method, p);
}

Result<json> Core::Impl::invite(const Peer& peer, const json& p) {
  if (!user_keys_[peer.key].owner)
    return fail(ErrorCode::kDenied, "{} does not own this relay: only its owner may invite",
                peer.user);
  const std::string user = p.value("user", "");
  if (user.empty() || user.size() > 64)
    return fail(ErrorCode::kInvalidArgument, "invite: \"user\" has to be a name");
  const std::int64_t ttl_s = p.value("ttl_s", std::int64_t{86400});
  if (ttl_s <= 0 || ttl_s > 366LL * 86400)
    return fail(ErrorCode::kInvalidArgument, "invite: \"ttl_s\" is {}, expected 1 to {}", ttl_s,
                366LL * 86400);
  const std::string token = options_.make_token();
  const Invitation invitation{content_hash(token), user, wall_ms() + ttl_s * 1000};
  invitations_[invitation.hash] = invitation;
  write(PutInvitation{invitation});
  return json{
      {"invitation", fmt::format("{}|{}|{}", options_.address, options_.server_key, token)}};
}

Result<json> Core::Impl::endpoint_register(const Peer& peer, const json& p) {
  const std::string name = p.value("name", "");
  const std::string key = p.value("key", "");
  if (name.empty() || name.size() > 128)
    return fail(ErrorCode::kInvalidArgument, "endpoint.register: \"name\" has to be a name");
  if (!is_key(key))
    return fail(ErrorCode::kInvalidArgument, "endpoint.register: \"key\" is no Z85 public key");
  for (auto& [id, e] : endpoints_) {
    if (e.record.user != peer.user || e.record.name != name) continue;
    const std::string description = p.value("description", e.record.description);
    if (e.record.key != key && e.peer != 0) {
      const PeerId old = e.peer;
      gone(old);
      refuse(old, ErrorCode::kDenied,
             fmt::format("endpoint {} was registered again with another key", name));
    }
    if (e.record.key != key || e.record.description != description) {
      e.record.key = key;
      e.record.description = description;
      write(PutEndpoint{e.record});
    }
    return json{{"endpoint_id", id.string()}};
  }
  EndpointRecord record;
  record.id = make_id<EndpointId>(now_.wall, rng_);
  while (endpoints_.contains(record.id)) record.id = make_id<EndpointId>(now_.wall, rng_);
  record.user = peer.user;
  record.name = name;
  record.key = key;
  record.description = p.value("description", "");
  endpoints_[record.id].record = record;
  write(PutEndpoint{record});
  log_info("endpoint {} of {}: registered as {}", name, peer.user, record.id.string());
  return json{{"endpoint_id", record.id.string()}};
}

Result<json> Core::Impl::endpoint_delete(const Peer& peer, const json& p) {
  auto found = endpoint_param(peer.user, p);
  if (!found) return fail(found.error());
  Endpoint& e = **found;
  const bool force = p.value("force", false);
  std::uint64_t tasks = 0;
  for (SubmissionId id : e.unfinished) {
    const Submission* s = find_submission(id);
    tasks += s->received.count() - s->final.count();
  }
  if (!e.unfinished.empty() && !force)
    return fail(ErrorCode::kBusy,
                "endpoint {} has {} unfinished tasks in {} submissions: cancel them, or delete it "
                "with force",
                e.record.name, tasks, e.unfinished.size());
  for (SubmissionId id : std::set<SubmissionId>(e.unfinished))
    cancel_whole(*find_submission(id), true, "cancelled because its endpoint was deleted");
  if (e.peer != 0) {
    const PeerId old = e.peer;
    gone(old);
    refuse(old, ErrorCode::kNotFound,
           fmt::format("endpoint {} was deleted by {}", e.record.name, peer.user));
  }
  const EndpointId id = e.record.id;
  write(DropEndpoint{id});
  endpoints_.erase(id);
  return json::object();
}

json Core::Impl::endpoint_json(const Endpoint& e) const {
  json status = nullptr;
  if (!e.status.empty()) status = json::parse(e.status.view(), nullptr, false);
  if (status.is_discarded()) status = nullptr;
  return json{{"name", e.record.name},
              {"endpoint_id", e.record.id.string()},
              {"description", e.record.description},
              {"online", e.ready},
              {"epoch", e.record.epoch},
              {"last_seen_ms", e.record.last_seen_ms},
              {"host", e.record.host},
              {"unfinished_submissions", e.unfinished.size()},
              {"status", status}};
}

Result<Endpoint*> Core::Impl::endpoint_param(const std::string& user, const json& p) {
  const std::string text = p.value("endpoint", "");
  for (auto& [id, e] : endpoints_)
    if (e.record.user == user && (e.record.name == text || id.string() == text)) return &e;
  return fail(ErrorCode::kNotFound, "no endpoint {} of {}: see farcall endpoint list", text, user);
}

Result<json> Core::Impl::answer_about_functions(Peer& peer, std::uint64_t request,
                                                const std::string& method, const json& p) {
  auto describe = [](const FunctionEntry& f) {
    json meta = json::parse(f.record.meta, nullptr, false);
    if (meta.is_discarded()) meta = f.record.meta;
    return json{{"function_id", f.record.id.string()},
                {"name", f.record.name},
                {"kind", name_of(f.record.kind)},
                {"created_ms", f.created_ms},
                {"meta", meta},
                {"size", f.body.size()}};
  };
  if (method == "function.list") {
    json list = json::array();
    for (const auto& [key, f] : functions_)
      if (key.first == peer.user) list.push_back(describe(f.entry));
    return json{{"functions", list}};
  }
  const std::string text = p.value("function", "");
  std::vector<Function*> found;
  for (auto& [key, f] : functions_)
    if (key.first == peer.user && (key.second.string() == text || f.entry.record.name == text))
      found.push_back(&f);
  if (found.empty())
    return fail(ErrorCode::kNotFound, "no function {} of {}: see farcall function list", text,
                peer.user);
  // Several versions of a name: the newest one is meant.
  Function* f = *std::max_element(found.begin(), found.end(), [](Function* a, Function* b) {
    return a->entry.created_ms < b->entry.created_ms;
  });
  if (method == "function.show") {
    json shown = describe(f->entry);
    shown["functions"] = json::array({describe(f->entry)});
    reply(peer.id, request, shown, {f->entry.body});
    return json();
  }
  if (method != "function.delete")
    return fail(ErrorCode::kInvalidArgument, "this relay knows no method {}", method);
  if (f->unfinished > 0)
    return fail(ErrorCode::kBusy, "function {} is needed by {} unfinished submissions",
                f->entry.record.name, f->unfinished);
  const FunctionId id = f->entry.record.id;
  if (auto blobs = wire::blob_refs(f->entry.body.view()))
    for (const wire::BlobRef& blob : *blobs) release_blob(peer.user, blob.hash);
  write(DropFunction{peer.user, id});
  functions_.erase({peer.user, id});
  return json::object();
}

}  // namespace farcall::relay
