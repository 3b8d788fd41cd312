# `cmake --install` for programs in C and C++, and `cmake --build . --target package` for a tarball and a Debian package.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(EDGEPRUNE_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/edgeprune)
set(EDGEPRUNE_PC_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# Everything that is installed finds the rest from its own place, so a tarball works wherever it is unpacked.
file(RELATIVE_PATH EDGEPRUNE_PC_PREFIX /prefix/${EDGEPRUNE_PC_DIR} /prefix)
string(REGEX REPLACE "/$" "" EDGEPRUNE_PC_PREFIX "${EDGEPRUNE_PC_PREFIX}")

configure_package_config_file(
  runtime/cmake/edgeprune-config.cmake.in ${PROJECT_BINARY_DIR}/edgeprune-config.cmake
  INSTALL_DESTINATION ${EDGEPRUNE_CMAKE_DIR})
# The interface only ever grows, so a later release of the same major version, and SONAME, serves.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/edgeprune-config-version.cmake COMPATIBILITY SameMajorVersion)
configure_file(runtime/cmake/edgeprune.pc.in ${PROJECT_BINARY_DIR}/edgeprune.pc @ONLY)

install(TARGETS edgeprune EXPORT edgeprune-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT edgeprune-targets NAMESPACE edgeprune:: DESTINATION ${EDGEPRUNE_CMAKE_DIR})
install(FILES ${PROJECT_BINARY_DIR}/edgeprune-config.cmake ${PROJECT_BINARY_DIR}/edgeprune-config-version.cmake
  DESTINATION ${EDGEPRUNE_CMAKE_DIR})
install(FILES ${PROJECT_BINARY_DIR}/edgeprune.pc DESTINATION ${EDGEPRUNE_PC_DIR})
install(FILES runtime/include/edgeprune.h runtime/include/edgeprune.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR TGZ DEB)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_FILE_NAME edgeprune-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_PACKAGE_CONTACT "The edgeprune developers")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
# One package with library and headers: robots are flashed, not upgraded library by library.
set(CPACK_DEBIAN_PACKAGE_NAME libedgeprune-dev)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Opened at run time when they are there, as onnxruntime is; Debian has no package name for the latter that all releases share.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "libjpeg62-turbo | libjpeg-turbo8, libpng16-16 | libpng16-16t64")
if(CMAKE_CROSSCOMPILING)
  # dpkg-shlibdeps reads the build machine's libraries; name what every Debian and Ubuntu has instead.
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS OFF)
  set(CPACK_DEBIAN_PACKAGE_DEPENDS "libc6, libstdc++6, libgcc-s1")
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
    set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE arm64)
  endif()
endif()
include(CPack)
