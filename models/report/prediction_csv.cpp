#include "models/report/prediction_csv.hpp"

#include <vector>

#include "models/report/timeline_csv.hpp"

namespace headway::inline report {

std::string prediction_to_csv(const Prediction& prediction) {
    std::vector<Timeline> timelines;
    for (const PlanPrediction& plan : prediction.plans) {
        Timeline& t = timelines.emplace_back(plan.timeline);
        t.source = Source::predicted;
        t.scenario = prediction.scenario;
        t.plan = plan.name;
        t.layer_split = plan.layer_split;
        t.profile = prediction.profile;
        t.version = prediction.version;
        t.seed = prediction.seed;
    }
    return timelines_to_csv(timelines);
}

}  // namespace headway::inline report
