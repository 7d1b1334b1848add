# Man pages and completions, made from what the programs say of themselves and installed beside them; and the Debian
# package: `cpack -G DEB` in the build folder.
find_package(Python3 3.9 COMPONENTS Interpreter)
if(Python3_FOUND)
    get_property(programs GLOBAL PROPERTY headway_installed)
    list(REMOVE_ITEM programs headway-bench)  # of kernels alone, which have no help of this form
    list(TRANSFORM programs REPLACE "(.+)" "$<TARGET_FILE:\\1>" OUTPUT_VARIABLE files)
    set(manual ${CMAKE_BINARY_DIR}/manual)
    add_custom_command(OUTPUT ${manual}/stamp
        COMMAND ${CMAKE_COMMAND} -E rm -rf ${manual}
        COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/scripts/write_manual ${manual} ${files}
        COMMAND ${CMAKE_COMMAND} -E touch ${manual}/stamp
        DEPENDS ${programs} ${CMAKE_SOURCE_DIR}/scripts/write_manual VERBATIM)
    add_custom_target(headway_manual ALL DEPENDS ${manual}/stamp)
    add_dependencies(headway_programs headway_manual)
    install(DIRECTORY ${manual}/ DESTINATION ${CMAKE_INSTALL_DATADIR} PATTERN stamp EXCLUDE)
else()
    message(STATUS "headway: Python not found: no man pages and no completions are installed")
endif()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

set(CPACK_PACKAGE_CONTACT "headway maintainers")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "predicts, simulates and verifies training steps of Mixture-of-Experts models")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS python3-matplotlib)
include(CPack)
