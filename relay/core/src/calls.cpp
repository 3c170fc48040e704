// Administration and questions: docs/protocol.md, "Methods".
#include "base/config.h"
#include "base/keys.h"
#include "base/log.h"
#include "messages.h"
#include "relay/core/relay.h"

namespace farcall::relay {

void Relay::reply(PeerId peer, std::uint64_t request, const Result<Json>& answer, std::vector<Bytes> more) {
  if (clients_.count(peer) == 0) return;
  wire::Reply body{request, 0, ""};
  std::vector<Bytes> payload;
  if (answer) {
    payload.push_back(Bytes(answer->dump(-1, ' ', false, Json::error_handler_t::replace)));
    for (Bytes& bytes : more) payload.push_back(std::move(bytes));
  } else {
    body.error = static_cast<std::int32_t>(answer.error().code);
    body.text = answer.error().message;
  }
  send_body(peer, body, std::move(payload));
}

void Relay::call(PeerId peer, Client& client, const Message& message) {
  auto request = wire::decode<wire::Call>(message);
  if (!request) return bad_message(peer, request.error());
  Json parameters = message.payload.empty() ? Json::object() : Json::parse(message.payload[0].view(), nullptr, false);
  if (!parameters.is_object())
    return reply(peer, request->request,
                 fail(ErrorCode::kInvalidArgument, "the parameters of {} are no JSON object", request->method));
  bool later = false;
  Result<Json> answer = fail(ErrorCode::kInternal, "no answer");
  try {
    answer = dispatch(peer, client, request->request, request->method, parameters, later);
  } catch (const Json::exception& error) {
    answer = fail(ErrorCode::kInvalidArgument, "{}: a parameter is missing or of the wrong kind: {}", request->method,
                  error.what());
  }
  if (later) return;
  after_commit([this, peer, number = request->request, answer = std::move(answer)] { reply(peer, number, answer); });
}

Result<nlohmann::json> Relay::dispatch(PeerId peer, Client& client, std::uint64_t request, const std::string& method,
                                       const Json& p, bool& later) {
  if (method == "whoami")
    return Json{{"user", client.user},
                {"key", client.key},
                {"relay", settings_.software},
                {"address", settings_.address},
                {"generation", generation_},
                {"owner", client.user == settings_.owner},
                {"superseded", superseded_},
                {"put_aside", put_aside_}};
  if (method == "invite") return call_invite(client, p);
  if (method == "endpoint.register") return call_endpoint_register(client, p);
  if (method == "endpoint.delete") return call_endpoint_delete(client, p);
  if (method == "endpoint.list") {
    Json list = Json::array();
    for (const auto& [id, endpoint] : endpoints_)
      if (endpoint.row.owner == client.user) list.push_back(endpoint_json(endpoint));
    return Json{{"endpoints", list}};
  }
  if (method == "endpoint.status") {
    auto endpoint = find_endpoint(client.user, p.at("endpoint").get<std::string>());
    if (!endpoint) return fail(endpoint.error());
    return endpoint_json(**endpoint);
  }
  if (method.starts_with("function.")) return call_functions(peer, client, request, method, p, later);
  if (method == "submission.list") return call_submission_list(client, p);
  if (method == "group.list") return call_group_list(client);
  if (method == "task.list") return call_task_list(client, p);
  if (method == "task.status") return call_task_status(client, p);
  if (method == "task.cancel") return call_task_cancel(client, p);
  if (method == "task.explain") return call_task_explain(peer, client, request, p, later);
  return fail(ErrorCode::kInvalidArgument, "the relay has no method '{}'; is the client newer than the relay ({})?",
              method, settings_.software);
}

Result<nlohmann::json> Relay::call_invite(const Client& client, const Json& p) {
  if (client.user != settings_.owner)
    return fail(ErrorCode::kDenied, "only {}, who owns this relay, may invite", settings_.owner);
  const auto user = p.at("user").get<std::string>();
  if (user.empty() || user.size() > 64 || user.find_first_of(" \t\n|/") != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "'{}' is no user name: expected 1 to 64 characters without blanks, '/' "
                                             "and '|'",
                user);
  const std::string token = random_token(24);
  const InvitationRow row{content_hash(token), user, now_ms() + p.value("ttl_s", std::int64_t{7 * 86400}) * 1000};
  invitations_[row.token_hash] = row;
  write(row);
  return Json{{"invitation", settings_.address + "|" + settings_.server_key + "|" + token},
              {"user", user},
              {"expires_ms", row.expires_ms}};
}

Result<Endpoint*> Relay::find_endpoint(const std::string& owner, const std::string& wanted) {
  std::vector<std::string> names;
  for (auto& [id, endpoint] : endpoints_) {
    if (endpoint.row.owner != owner) continue;
    if (endpoint.row.name == wanted || id.string() == wanted) return &endpoint;
    names.push_back(endpoint.row.name);
  }
  if (names.empty())
    return fail(ErrorCode::kNotFound,
                "there is no endpoint '{}': you have none yet; make one with `farcall endpoint configure {}` and "
                "`farcall endpoint start {}`",
                wanted, wanted, wanted);
  auto nearest = suggest(wanted, names);
  return fail(ErrorCode::kNotFound, "there is no endpoint '{}'{}; yours are: {}", wanted,
              nearest ? fmt::format(", did you mean '{}'?", *nearest) : "", fmt::join(names, ", "));
}

Result<nlohmann::json> Relay::call_endpoint_register(const Client& client, const Json& p) {
  const auto name = p.at("name").get<std::string>();
  const auto key = p.at("key").get<std::string>();
  if (!is_key(key)) return fail(ErrorCode::kInvalidArgument, "the key of endpoint {} is no CURVE key", name);
  if (name.empty() || name.size() > 128 || name.find_first_of(" \t\n'\"/\\") != std::string::npos || name[0] == '.')
    return fail(ErrorCode::kInvalidArgument,
                "'{}' is no endpoint name: expected 1 to 128 characters without blanks, quotes and slashes", name);
  for (auto& [id, endpoint] : endpoints_) {
    if (endpoint.row.owner != client.user || endpoint.row.name != name) continue;
    if (endpoint.row.key != key) {
      endpoint.row.key = key;
      write(endpoint.row);
    }
    return Json{{"endpoint_id", id.string()}, {"name", name}};
  }
  EndpointRow row;
  row.id = make_id<EndpointId>(now_.wall, rng_);
  row.owner = client.user;
  row.name = name;
  row.key = key;
  row.description = p.value("description", "");
  row.created_ms = now_ms();
  endpoints_[row.id].row = row;
  write(row);
  log_info("endpoint {} of {} registered as {}", name, client.user, row.id.string());
  return Json{{"endpoint_id", row.id.string()}, {"name", name}};
}

Result<nlohmann::json> Relay::call_endpoint_delete(const Client& client, const Json& p) {
  auto endpoint = find_endpoint(client.user, p.at("endpoint").get<std::string>());
  if (!endpoint) return fail(endpoint.error());
  const EndpointId id = (*endpoint)->row.id;
  std::uint64_t open = 0;
  for (const auto& [submission_id, s] : submissions_)
    if (s.header.endpoint == id) open += s.received.count() - s.final_count();
  if (open > 0 && !p.value("force", false))
    return fail(ErrorCode::kBusy, "endpoint {} has {} unfinished tasks: wait for them or cancel them, or delete it "
                                  "with --force",
                (*endpoint)->row.name, open);
  CancelCounts counts;
  for (auto& [submission_id, s] : submissions_)
    if (s.header.endpoint == id) cancel(s, RangeSet{{0, UINT32_MAX}}, true, counts);
  if ((*endpoint)->peer) {
    effects_.refuse.emplace_back(*(*endpoint)->peer, Error{ErrorCode::kNotFound, "the endpoint was deleted"});
    endpoint_peers_.erase(*(*endpoint)->peer);
  }
  write(DeletedEndpoint{id});
  endpoints_.erase(id);
  return Json{{"cancelled", counts.cancelled}};
}

Result<nlohmann::json> Relay::call_functions(PeerId peer, const Client& client, std::uint64_t request,
                                             const std::string& method, const Json& p, bool& later) {
  if (method == "function.list") {
    Json list = Json::array();
    for (const auto& [id, f] : functions_)
      if (f.owners.count(client.user) != 0)
        list.push_back({{"function_id", id.string()},
                        {"name", f.record.name},
                        {"kind", name_of(f.record.kind)},
                        {"created_ms", f.created_ms},
                        {"meta", Json::parse(f.record.meta, nullptr, false)},
                        {"size", f.size}});
    return Json{{"functions", list}};
  }
  auto id = FunctionId::parse(p.at("function").get<std::string>());
  if (!id) return fail(id.error());
  auto found = functions_.find(*id);
  if (found == functions_.end() || found->second.owners.count(client.user) == 0)
    return fail(ErrorCode::kNotFound, "there is no function {}: `farcall function list` shows yours", id->string());
  if (method == "function.show") {
    later = true;
    after_commit([this, peer, request, function = *id] {
      request_read(ReadBody{function}, PendingBody{function, peer, request});
    });
    return Json();
  }
  if (method != "function.delete") return fail(ErrorCode::kInvalidArgument, "the relay has no method '{}'", method);
  for (const auto& [submission_id, s] : submissions_)
    if (s.header.function == *id && s.header.owner == client.user && s.final_count() < s.received.count())
      return fail(ErrorCode::kBusy, "function {} is used by unfinished tasks of submission {}", found->second.record.name,
                  submission_id.string());
  found->second.owners.erase(client.user);
  write(DeletedFunction{client.user, *id});
  // Others may have registered the same content; the record goes with the last of them.
  if (found->second.owners.empty()) functions_.erase(found);
  return Json::object();
}

nlohmann::json Relay::endpoint_json(const Endpoint& endpoint) const {
  std::uint64_t waiting = 0;
  for (const auto& [id, s] : submissions_)
    if (s.header.endpoint == endpoint.row.id) waiting += s.undelivered.count();
  return {{"name", endpoint.row.name},
          {"endpoint_id", endpoint.row.id.string()},
          {"description", endpoint.row.description},
          {"online", endpoint.peer.has_value()},
          {"last_seen_ms", endpoint.last_seen_ms},
          {"host", endpoint.host},
          {"pid", endpoint.pid},
          {"epoch", endpoint.row.epoch},
          {"waiting_at_relay", waiting},
          {"status", endpoint.status}};
}

}  // namespace farcall::relay
