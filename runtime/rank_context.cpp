#include "runtime/rank_context.hpp"

namespace headway::runtime {

PhaseScope::PhaseScope(RankContext& context, CallSite site, Communicator* peers)
    : context_(context), sample_{.site = site_in(context, site)} {
    site = sample_.site;
    context.communicator.enter(site);
    if (context.on_enter) context.on_enter(site);
    if (context.samples == nullptr) return;
    sample_.begin = context.now();
    if (peers != nullptr) peers->barrier();
    start_ = context.now();
}

PhaseScope::~PhaseScope() {
    if (context_.samples == nullptr) return;
    sample_.duration = context_.now() - start_;
    context_.samples->push_back(sample_);
}

}  // namespace headway::runtime
