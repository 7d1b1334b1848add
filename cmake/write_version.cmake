# Run at build time (cmake -P): writes the version source only when its content changed, so that a
# commit relinks the executables and recompiles one line.
set(commit "")
find_package(Git QUIET)
if(GIT_FOUND)
    execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --abbrev=8 --exclude=*
        WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(commit)
    set(commit "+${commit}")
endif()
set(text "#include \"models/report/version.hpp\"\n
std::string_view headway::report::version() {\n    return \"${VERSION}${commit}\";\n}\n")
if(EXISTS ${OUTPUT})
    file(READ ${OUTPUT} old)
endif()
if(NOT "${old}" STREQUAL "${text}")
    file(WRITE ${OUTPUT} "${text}")
endif()
