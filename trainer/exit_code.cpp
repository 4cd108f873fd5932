#include "trainer/exit_code.hpp"

#include <new>
#include <system_error>

#include "comm/error.hpp"
#include "datasets/error.hpp"
#include "trainer/checkpoint.hpp"
#include "trainer/config.hpp"
#include "trainer/replica_guard.hpp"

namespace lockstep::trainer {

ExitCode exit_code_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ConfigError&) {
    return ExitCode::wrong_configuration;
  } catch (const datasets::DataError&) {
    return ExitCode::wrong_data;
  } catch (const CheckpointError&) {
    return ExitCode::wrong_data;
  } catch (const std::system_error&) {
    return ExitCode::wrong_data;  // a file that could not be written
  } catch (const Diverged&) {
    return ExitCode::diverged;
  } catch (const ReplicaError&) {
    return ExitCode::communication_failed;
  } catch (const comm::CommError&) {
    return ExitCode::communication_failed;
  } catch (const comm::RemoteError& remote) {
    return static_cast<ExitCode>(remote.exit_code);
  } catch (...) {
    return ExitCode::internal_error;
  }
}

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const comm::RemoteError&) {
    return "";
  } catch (const std::bad_alloc&) {
    return "out of memory";
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an unknown error";
  }
}

}  // namespace lockstep::trainer
