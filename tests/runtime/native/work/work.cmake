# The tokenizer with a counter in every basic block, for tests of how its work grows with the text.
file(GLOB WORK_SOURCES CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/runtime/src/tokenizer*.cpp
  ${CMAKE_SOURCE_DIR}/runtime/src/unicode*.cpp
  ${CMAKE_SOURCE_DIR}/runtime/src/json_document.cpp
  ${CMAKE_SOURCE_DIR}/runtime/src/utf8.cpp)
add_library(tokenizer_work_objects OBJECT ${WORK_SOURCES})
target_compile_options(tokenizer_work_objects PRIVATE -fsanitize-coverage=trace-pc)
add_executable(tokenizer_work_cli ${CMAKE_SOURCE_DIR}/tests/runtime/native/work/tokenizer_work_cli.cpp
  $<TARGET_OBJECTS:tokenizer_work_objects>)
foreach(target tokenizer_work_objects tokenizer_work_cli)
  target_include_directories(${target} PRIVATE runtime/include runtime/src)
  target_include_directories(${target} SYSTEM PRIVATE ${NLOHMANN_JSON_INCLUDE})
endforeach()
