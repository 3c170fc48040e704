# `cmake --install` gives programs, provider modules, runners, and a package for find_package(farcall):
# farcall::client (talks to a relay) and farcall::function (functions in shared objects). The layers
# below the client are installed with it; their headers lie in a folder of their own.
include(CMakePackageConfigHelpers)

set(FARCALL_PACKAGE_LAYERS farcall_base farcall_model farcall_blobs farcall_staging farcall_wire farcall_wire_zmq farcall_client)
set(internal include/farcall/internal)
foreach(layer ${FARCALL_PACKAGE_LAYERS})
  target_include_directories(${layer} INTERFACE $<INSTALL_INTERFACE:include> $<INSTALL_INTERFACE:${internal}>)
  target_compile_features(${layer} INTERFACE cxx_std_20)
endforeach()
install(TARGETS ${FARCALL_PACKAGE_LAYERS} farcall_function farcall_msgpack EXPORT farcall ARCHIVE DESTINATION lib)
install(DIRECTORY base/include/base DESTINATION ${internal} FILES_MATCHING PATTERN "*.h")
install(DIRECTORY model/include/model DESTINATION ${internal} FILES_MATCHING PATTERN "*.h")
install(DIRECTORY client/include/farcall DESTINATION include
  FILES_MATCHING PATTERN "*.h")

set(package lib/cmake/farcall)
install(EXPORT farcall NAMESPACE farcall:: DESTINATION ${package})
configure_package_config_file(cmake/farcallConfig.cmake.in ${CMAKE_BINARY_DIR}/farcallConfig.cmake
  INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/farcallConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/farcallConfig.cmake ${CMAKE_BINARY_DIR}/farcallConfigVersion.cmake
  DESTINATION ${package})

install(TARGETS farcall-relay farcall-interchange RUNTIME)
install(TARGETS farcall-local-keeper RUNTIME DESTINATION lib/farcall)
install(DIRECTORY ${FARCALL_PROVIDER_OUTPUT_DIRECTORY}/ DESTINATION lib/farcall/providers
  USE_SOURCE_PERMISSIONS FILES_MATCHING PATTERN "*.so")
