# What `cmake --install` installs: programs, and the data that they find beside themselves (PREFIX/share/headway). A build
# folder links the same place to the source tree, so that a program looks in one place alone.
include(GNUInstallDirs)
file(RELATIVE_PATH HEADWAY_DATA_FROM_PROGRAM ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_DATADIR}/headway)
set(headway_data ${CMAKE_SOURCE_DIR}/scenarios ${CMAKE_SOURCE_DIR}/analysis)

get_filename_component(headway_links ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/${HEADWAY_DATA_FROM_PROGRAM} ABSOLUTE)
file(MAKE_DIRECTORY ${headway_links})
foreach(folder ${headway_data})
    get_filename_component(name ${folder} NAME)
    file(RELATIVE_PATH target ${headway_links} ${folder})
    file(CREATE_LINK ${target} ${headway_links}/${name} SYMBOLIC)
endforeach()
install(DIRECTORY ${headway_data} DESTINATION ${CMAKE_INSTALL_DATADIR}/headway PATTERN __pycache__ EXCLUDE)

# Everything that is installed; `cmake --install` expects it built.
add_custom_target(headway_programs)
function(headway_install_program name)
    install(TARGETS ${name} RUNTIME)
    add_dependencies(headway_programs ${name})
    set_property(GLOBAL APPEND PROPERTY headway_installed ${name})
endfunction()
