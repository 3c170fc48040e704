#include "farcall/client.h"

#include <future>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/files.h"
#include "base/keys.h"
#include "client_impl.h"
#include "wire/codec.h"

namespace farcall {

using nlohmann::json;

namespace {

double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

// --- Impl: any thread ----------------------------------------------------------------------------

Client::Impl::Impl(ClientOptions o, Identity i)
    : options(std::move(o)),
      identity(std::move(i)),
      address(options.relay.empty() ? identity.relay : options.relay),
      credit(options.credit_tasks, options.credit_bytes) {}

Client::Impl::~Impl() { stop(); }

Error Client::Impl::explain(const Error& error) const {
  std::string text = error.message;
  switch (error.code) {
    case ErrorCode::kUnreachable: {
      const std::string refused = "connection refused by " + address;
      if (text == refused) text = "connection refused";
      return {error.code, fmt::format("cannot reach the relay at {}: {}; is it running? try "
                                      "`farcall relay status`",
                                      address, text)};
    }
    case ErrorCode::kDenied:
      if (text.find("server key") != std::string::npos)
        return {error.code,
                fmt::format("cannot trust the relay: {}; ask its owner for a new invitation and "
                            "`farcall login` with it",
                            text)};
      if (text.find("farcall relay invite") != std::string::npos)
        return {error.code, fmt::format("the relay at {} did not let us in: {}", address, text)};
      return {error.code,
              fmt::format("the relay at {} did not let us in: {}; ask its owner for an invitation "
                          "(`farcall relay invite NAME` there, `farcall login INVITATION` here)",
                          address, text)};
    default:
      return {error.code, fmt::format("the relay at {}: {}", address, text)};
  }
}

Result<void> Client::Impl::start() {
  thread = std::thread([this] { run(); });
  std::unique_lock lock(mutex);
  const auto deadline = std::chrono::steady_clock::now() + options.timeout;
  auto decided = [this] {
    if (phase == Phase::kUp || phase == Phase::kRefused) return true;
    return phase == Phase::kDown && !options.wait_for_relay;
  };
  const bool in_time = changed.wait_until(lock, deadline, decided);
  if (phase == Phase::kUp) return {};
  if (!in_time && phase == Phase::kConnecting)
    return fail(explain(
        {ErrorCode::kUnreachable, fmt::format("no answer within {} s", seconds(options.timeout))}));
  return fail(explain(last_error));
}

void Client::Impl::stop() {
  if (!thread.joinable()) return;
  FARCALL_CHECK(!on_io_thread(), "a Client was destroyed by one of its own callbacks");
  loop.stop();
  thread.join();
}

bool Client::Impl::post(std::function<void()> action) {
  std::lock_guard lock(mutex);
  if (phase == Phase::kStopped) return false;
  loop.post(std::move(action));
  return true;
}

void Client::Impl::request(std::string what, std::function<wire::Message(std::uint64_t)> make,
                           Done done) {
  auto send = [this, what, make = std::move(make), done] {
    Error refused;
    {
      std::lock_guard lock(mutex);
      if (phase == Phase::kRefused) refused = explain(last_error);
    }
    if (!refused.message.empty()) return done(fail(refused));
    if (welcomed) pump();  // what was collected or added before is handled before the call
    const std::uint64_t number = ++last_request;
    PendingCall& call = calls[number];
    call.what = what;
    call.message = make(number);
    call.done = done;
    call.timer = loop.after(options.timeout, [this, number, what] {
      calls.at(number).timer = 0;
      std::string why = welcomed ? "" : "; " + dialer->last_error().message;
      finish_call(number, fail(ErrorCode::kTimeout,
                               "the relay at {} did not answer {} within {} s{}; it may have been "
                               "done",
                               address, what, seconds(options.timeout), why));
    });
    if (welcomed) dialer->send(call.message);
  };
  if (!post(send)) done(fail(ErrorCode::kCancelled, "the client was closed"));
}

Result<CallAnswer> Client::Impl::wait_for(std::function<void(Done)> send) {
  FARCALL_CHECK(!on_io_thread(), "a callback of a Client waits for the relay");
  auto promise = std::make_shared<std::promise<Result<CallAnswer>>>();
  auto answer = promise->get_future();
  send([promise](Result<CallAnswer> result) { promise->set_value(std::move(result)); });
  return answer.get();
}

void Client::Impl::release(std::uint64_t tasks, std::uint64_t bytes) {
  std::lock_guard lock(mutex);
  released_tasks += tasks;
  released_bytes += bytes;
  if (release_posted || phase == Phase::kStopped) return;
  release_posted = true;
  loop.post([] {});  // a turn of the loop sends the credit
}

void Client::Impl::add_upload(std::shared_ptr<SubmissionWriter::Impl> writer) {
  post([this, writer = std::move(writer)] { uploads.emplace(writer->id, writer); });
}

// --- Client --------------------------------------------------------------------------------------

Client::Client(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Client::~Client() { impl_->stop(); }

Result<std::unique_ptr<Client>> Client::connect(ClientOptions options) {
  if (options.home.empty()) options.home = farcall_home();
  if (options.identity.empty()) options.identity = options.home / "identity";
  auto identity = read_identity(options.identity);
  if (!identity) return fail(identity.error());
  auto client =
      std::make_unique<Client>(std::make_shared<Impl>(std::move(options), std::move(*identity)));
  if (auto started = client->impl_->start(); !started) return fail(started.error());
  return client;
}

RelayInfo Client::relay() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->info;
}

Result<CallAnswer> Client::call(std::string_view method, std::string_view parameters) {
  return impl_->wait_for([&](Impl::Done done) { call_async(method, parameters, std::move(done)); });
}

void Client::call_async(std::string_view method, std::string_view parameters,
                        std::function<void(Result<CallAnswer>)> done) {
  const Bytes json_bytes = Bytes::copy_of(parameters.empty() ? "{}" : parameters);
  impl_->request(
      std::string(method),
      [method = std::string(method), json_bytes](std::uint64_t number) {
        return wire::make_message(wire::Call{number, method}, {json_bytes});
      },
      std::move(done));
}

Result<FunctionId> Client::register_function(FunctionRecord function, Bytes body) {
  const FunctionId id = function_id(function.kind, function.name, body.view());
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->registered.contains(id)) return id;
  }
  function.id = id;
  const std::string what = "the registration of function " + function.name;
  auto answer = impl_->wait_for([&](Impl::Done done) {
    impl_->request(
        what,
        [&](std::uint64_t number) {
          return wire::make_message(wire::RegisterFunction{number, function}, {body});
        },
        std::move(done));
  });
  if (!answer) return fail(answer.error());
  const json reply = json::parse(answer->json, nullptr, false);
  const std::string text = reply.is_object() ? reply.value("function_id", "") : "";
  if (text != id.string())
    return fail(ErrorCode::kInternal, "the relay calls function {} {}, expected {}", function.name,
                text.empty() ? "nothing" : text, id.string());
  std::lock_guard lock(impl_->mutex);
  impl_->registered.insert(id);
  return id;
}

Result<EndpointId> Client::find_endpoint(const std::string& name_or_id) {
  {
    std::lock_guard lock(impl_->mutex);
    auto found = impl_->endpoints.find(name_or_id);
    if (found != impl_->endpoints.end()) return found->second;
  }
  auto answer = call("endpoint.list");
  if (!answer) return fail(answer.error());
  const json reply = json::parse(answer->json, nullptr, false);
  if (!reply.is_object() || !reply.contains("endpoints"))
    return fail(ErrorCode::kCorrupt, "the relay's list of endpoints is damaged");
  std::vector<std::string> names;
  for (const json& endpoint : reply["endpoints"]) {
    const std::string name = endpoint.value("name", ""), id = endpoint.value("endpoint_id", "");
    names.push_back(name);
    if (name != name_or_id && id != name_or_id) continue;
    auto parsed = EndpointId::parse(id);
    if (!parsed) return fail(parsed.error());
    std::lock_guard lock(impl_->mutex);
    impl_->endpoints[name_or_id] = *parsed;
    return *parsed;
  }
  if (names.empty())
    return fail(ErrorCode::kNotFound,
                "no endpoint \"{}\": you have none yet; make one with `farcall endpoint configure "
                "{} --provider local` and `farcall endpoint start {}`",
                name_or_id, name_or_id, name_or_id);
  const auto near = suggest(name_or_id, names);
  return fail(ErrorCode::kNotFound, "no endpoint \"{}\"{}; yours are: {}", name_or_id,
              near ? fmt::format(", did you mean \"{}\"?", *near) : "", fmt::join(names, ", "));
}

SubmissionId Client::new_submission_id() {
  std::lock_guard lock(impl_->mutex);
  return make_id<SubmissionId>(read_clock().wall, impl_->rng);
}

Client::WatchId Client::watch(std::vector<WatchRequest> submissions, WatchHandlers handlers) {
  WatchId id = 0;
  {
    std::lock_guard lock(impl_->mutex);
    id = ++impl_->last_watch;
  }
  auto shared = std::make_shared<const WatchHandlers>(std::move(handlers));
  impl_->post([impl = impl_.get(), id, shared, submissions = std::move(submissions)] {
    for (const WatchRequest& item : submissions) {
      impl->watched[item.submission] = {id, shared, item.have, item.outcomes, false};
      impl->watches_to_send.insert(item.submission);
    }
  });
  return id;
}

void Client::unwatch(WatchId id) {
  auto ended = std::make_shared<std::promise<void>>();
  const bool posted = impl_->post([impl = impl_.get(), id, ended] {
    for (auto entry = impl->watched.begin(); entry != impl->watched.end();) {
      if (entry->second.watch != id) {
        ++entry;
        continue;
      }
      if (entry->second.sent) impl->watches_to_send.insert(entry->first);
      entry = impl->watched.erase(entry);
    }
    ended->set_value();
  });
  if (posted && !impl_->on_io_thread()) ended->get_future().wait();
}

void Client::collected(const SubmissionId& submission, RangeSet indices) {
  impl_->post([impl = impl_.get(), submission, indices = std::move(indices)] {
    impl->collected_to_send[submission].insert(indices);
  });
}

Result<void> Client::flush() {
  auto answer = call("whoami");
  if (!answer) return fail(answer.error());
  return {};
}

namespace {
Result<Client::CancelCounts> cancel_with(Client& client, json parameters, bool force) {
  if (force) parameters["force"] = true;
  auto answer = client.call("task.cancel", parameters.dump());
  if (!answer) return fail(answer.error());
  const json reply = json::parse(answer->json, nullptr, false);
  if (!reply.is_object()) return fail(ErrorCode::kCorrupt, "the relay's answer is damaged");
  Client::CancelCounts counts;
  counts.cancelled = reply.value("cancelled", 0ULL);
  counts.requested = reply.value("requested", 0ULL);
  counts.finished = reply.value("finished", 0ULL);
  return counts;
}
}  // namespace

Result<Client::CancelCounts> Client::cancel(const std::vector<TaskId>& tasks, bool force) {
  json ids = json::array();
  for (const TaskId& task : tasks) ids.push_back(task.string());
  return cancel_with(*this, {{"tasks", std::move(ids)}}, force);
}
Result<Client::CancelCounts> Client::cancel_submission(const SubmissionId& submission, bool force) {
  return cancel_with(*this, {{"submission", submission.string()}}, force);
}
Result<Client::CancelCounts> Client::cancel_group(const std::string& group, bool force) {
  return cancel_with(*this, {{"group", group}}, force);
}

}  // namespace farcall
