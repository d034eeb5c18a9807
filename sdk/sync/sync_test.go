package sync_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/sync"
)

// shelf is a layout with some repositories, each of whose tags is another image.
func shelf(t *testing.T) berth.Registry {
	t.Helper()
	registry, from := local(t), store{}
	for name, tags := range map[string][]string{
		"app/web":       {"v1", "v2", "latest"},
		"app/api":       {"v1"},
		"app/deep/down": {"v1"},
		"app":           {"v1"},
		"base":          {"latest"},
	} {
		for _, tag := range tags {
			from.push(t, registry, name, from.image(from.layer("shared"), from.layer(name+":"+tag)), tag)
		}
	}
	from.push(t, registry, "untagged", from.image())
	return registry
}

// at is a registry as the one place that images are brought to.
func at(to sync.Destination) []sync.To { return []sync.To{{Registry: to}} }

// saved is a plan that was kept in a file.
func saved(t *testing.T, plan *sync.Plan) *sync.Plan {
	t.Helper()
	data, err := json.Marshal(plan)
	must(t, err)
	read := &sync.Plan{}
	must(t, json.Unmarshal(data, read))
	return read
}

func sources(plan *sync.Plan) (names []string) {
	for _, item := range plan.Items {
		names = append(names, item.Source)
	}
	return names
}

func TestPatternsSelectTags(t *testing.T) {
	from, to := shelf(t), serve(t)
	for _, c := range []struct {
		patterns string
		want     string
	}{
		{"app/web:v1", "app/web:v1"},
		{"app/web:v*", "app/web:v1 app/web:v2"},
		{"app/web", "app/web:latest app/web:v1 app/web:v2"},
		{"app/web:**", "app/web:latest app/web:v1 app/web:v2"},
		{"app/*:v1", "app/api:v1 app/web:v1"},
		{"*:v1", "app:v1"},
		{"app/**:v1", "app:v1 app/api:v1 app/deep/down:v1 app/web:v1"},
		{"**:latest", "app/web:latest base:latest"},
		{"**", "app:v1 app/api:v1 app/deep/down:v1 app/web:latest app/web:v1 app/web:v2 base:latest"},
		{"app/{web,api}:v1", "app/api:v1 app/web:v1"},
		{"app/we?:v[12]", "app/web:v1 app/web:v2"},
		{"base app/api", "base:latest app/api:v1"},
		{"app/web:v1 app/*:v1 app/web:v* app/web:v1", "app/web:v1 app/api:v1 app/web:v2"},
	} {
		plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: strings.Fields(c.patterns)})
		if err != nil || !slices.Equal(sources(plan), strings.Fields(c.want)) {
			t.Errorf("%s: got %q, %v; want %s", c.patterns, sources(plan), err, c.want)
		}
	}
	if writes := to.sent(); len(writes) != 0 {
		t.Errorf("a plan changed the target: %q", writes)
	}
}

func TestPatternsThatAreRefused(t *testing.T) {
	from, to := shelf(t), serve(t)
	for _, c := range []struct {
		patterns []string
		err      error
	}{
		{[]string{"app/none"}, sync.ErrNothing},
		{[]string{"app/web:v3"}, sync.ErrNothing},
		{[]string{"untagged"}, sync.ErrNothing},
		{[]string{"APP/web"}, berth.ErrNameInvalid},
		{[]string{"app/web", "app/none"}, sync.ErrNothing},
		{[]string{}, sync.ErrNothing},
		{[]string{"app/[web"}, berth.ErrNameInvalid},
		{[]string{"app/web:[v"}, berth.ErrTagInvalid},
		{[]string{"app/web:"}, berth.ErrNameInvalid},
		{[]string{":v1"}, berth.ErrNameInvalid},
		{[]string{""}, berth.ErrNameInvalid},
		{[]string{"app/web", "{"}, berth.ErrNameInvalid},
	} {
		plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: c.patterns})
		if !errors.Is(err, c.err) || plan != nil {
			t.Errorf("%q: got %v, want %v", c.patterns, err, c.err)
			continue
		}
		if n := len(c.patterns); n > 0 && !strings.Contains(err.Error(), `"`+c.patterns[n-1]+`"`) {
			t.Errorf("%q are not named: %v", c.patterns, err)
		}
	}
}

func TestPlanOfAnEmptyLayoutIsNothing(t *testing.T) {
	_, err := sync.Make(t.Context(), local(t), at(serve(t)), sync.Selection{Patterns: []string{"**"}})
	if !errors.Is(err, sync.ErrNothing) {
		t.Errorf("got %v, want ErrNothing", err)
	}
}

func TestPrefixComesBeforeTheName(t *testing.T) {
	from, to := shelf(t), serve(t)
	for prefix, want := range map[string]string{"": "app/web:v1", "team": "team/app/web:v1", "team/images": "team/images/app/web:v1"} {
		places := []sync.To{{Registry: to, Prefix: prefix}}
		plan, err := sync.Make(t.Context(), from, places, sync.Selection{Patterns: []string{"app/web:v1"}})
		if err != nil || plan.Items[0].Target != want {
			t.Errorf("prefix %q: got %+v, %v", prefix, plan, err)
			continue
		}
		if _, err := sync.Apply(t.Context(), from, at(to), plan, nil); err != nil {
			t.Error(err)
		}
		name, _, _ := strings.Cut(want, ":")
		if tags := tagsOf(t, to.layout, name); !slices.Equal(tags, []string{"v1"}) {
			t.Errorf("%s has the tags %q", name, tags)
		}
	}
	long := []sync.To{{Registry: to, Prefix: strings.Repeat("x", 250)}}
	_, err := sync.Make(t.Context(), from, long, sync.Selection{Patterns: []string{"app/web:v1"}})
	if !errors.Is(err, berth.ErrNameInvalid) {
		t.Errorf("a name that becomes too long: got %v", err)
	}
}

func TestPlanTellsWhatDiffers(t *testing.T) {
	from, to, images := shelf(t), serve(t), store{}
	selection := sync.Selection{Patterns: []string{"app/web:v1", "app/web:v2", "base"}}
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web:v1"}})
	must(t, err)
	_, err = sync.Apply(t.Context(), from, at(to), plan, nil)
	must(t, err)
	other := images.image(images.layer("something else"))
	images.push(t, to, "app/web", other, "v2")
	plan, err = sync.Make(t.Context(), from, at(to), selection)
	must(t, err)
	want := map[string]struct {
		was     digest.Digest
		drifted bool
	}{
		"app/web:v1":  {plan.Items[0].Descriptor.Digest, false},
		"app/web:v2":  {other.Digest, true},
		"base:latest": {"", true},
	}
	for _, item := range plan.Items {
		if w := want[item.Source]; item.Was != w.was || item.Drifted() != w.drifted {
			t.Errorf("%+v, want %+v", item, w)
		}
	}
	if drift := plan.Drift(); len(drift) != 2 || drift[0].Source != "app/web:v2" || drift[1].Source != "base:latest" {
		t.Errorf("the drift is %+v", drift)
	}
	if plan.Items[0].Host != to.Host() {
		t.Errorf("the host is %s", plan.Items[0].Host)
	}
}

func TestApplyMakesTheTargetWhatThePlanSays(t *testing.T) {
	from, to := shelf(t), serve(t)
	selection := sync.Selection{Patterns: []string{"**"}}
	plan, err := sync.Make(t.Context(), from, at(to), selection)
	must(t, err)
	report, err := sync.Apply(t.Context(), from, at(to), plan, nil)
	must(t, err)
	if len(report.Items) != len(plan.Items) {
		t.Errorf("got %+v", report)
	}
	var total sync.Stats
	for _, r := range report.Items {
		if r.Error != "" || r.Stats == (sync.Stats{}) {
			t.Errorf("%s: %+v", r.Source, r)
		}
		total.Existing, total.Mounted = total.Existing+r.Stats.Existing, total.Mounted+r.Stats.Mounted
		total.Sent, total.Bytes = total.Sent+r.Stats.Sent, total.Bytes+r.Stats.Bytes
	}
	if total != report.Total || total.Mounted == 0 {
		t.Errorf("the total is %+v, the sum %+v", report.Total, total)
	}
	again, err := sync.Make(t.Context(), from, at(to), selection)
	if err != nil || len(again.Drift()) != 0 {
		t.Errorf("what differs afterwards: %+v, %v", again.Drift(), err)
	}
}

func TestASecondRunSendsNothing(t *testing.T) {
	from, to := shelf(t), serve(t)
	for run := range 2 {
		plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"**"}})
		must(t, err)
		report, err := sync.Apply(t.Context(), from, at(to), plan, nil)
		must(t, err)
		writes := to.sent()
		if run == 1 && (len(writes) != 0 || report.Total != (sync.Stats{})) {
			t.Errorf("it sent %q: %+v", writes, report.Total)
		}
		if len(report.Items) != len(plan.Items) {
			t.Errorf("the report has %d items of %d", len(report.Items), len(plan.Items))
		}
	}
}

func TestOneItemThatFailsDoesNotEndTheOthers(t *testing.T) {
	from, to := shelf(t), serve(t)
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/*:v1", "base"}})
	must(t, err)
	to.refuse = func(r *http.Request) bool {
		return strings.HasPrefix(r.URL.Path, "/v2/app/web/") && r.Method != http.MethodHead
	}
	report, err := sync.Apply(t.Context(), from, at(to), plan, nil)
	if err == nil || !strings.Contains(err.Error(), "app/web:v1 → "+to.Host()+"/app/web:v1") {
		t.Errorf("got %v", err)
	}
	for _, r := range report.Items {
		if failed := r.Source == "app/web:v1"; failed != (r.Error != "") {
			t.Errorf("%s: error %q", r.Source, r.Error)
		}
	}
	for name, want := range map[string]int{"app/web": 0, "app/api": 1, "base": 1} {
		if tags := tagsOf(t, to.layout, name); len(tags) != want {
			t.Errorf("%s has the tags %q", name, tags)
		}
	}
}

func TestApplyOfWhatIsNotHereAnyMore(t *testing.T) {
	from, to := shelf(t), serve(t)
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/*:v1"}})
	must(t, err)
	gone, err := from.Repository("app/web")
	must(t, err)
	must(t, gone.DeleteManifest(t.Context(), plan.Items[1].Descriptor.Digest))
	report, err := sync.Apply(t.Context(), from, at(to), saved(t, plan), nil)
	if !errors.Is(err, berth.ErrManifestUnknown) || report.Items[0].Error != "" || report.Items[1].Error == "" {
		t.Errorf("got %+v, %v", report, err)
	}
}

// A registry that keeps something else than what it was given has not taken it.
func TestApplyAsksTheTargetWhatItHasNow(t *testing.T) {
	from, to, images := shelf(t), serve(t), store{}
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"base"}})
	must(t, err)
	other := images.image(images.layer("another one"))
	pushed := false
	to.refuse = func(r *http.Request) bool {
		switch {
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/"):
			pushed = true
		case pushed && r.Method == http.MethodHead:
			images.push(t, to.layout, "base", other, "latest")
		}
		return false
	}
	report, err := sync.Apply(t.Context(), from, at(to), plan, &sync.ApplyOptions{Verify: true})
	if !errors.Is(err, berth.ErrDigestInvalid) || !strings.Contains(report.Items[0].Error, string(other.Digest)) {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestApplyThatIsCancelledReportsHowFarItCame(t *testing.T) {
	from, to := shelf(t), serve(t)
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web", "base"}})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	manifests := 0
	progress := func(e sync.Event) {
		if e.Descriptor.MediaType == v1.MediaTypeImageManifest {
			if manifests++; manifests == 2 {
				cancel()
			}
		}
	}
	report, err := sync.Apply(ctx, from, at(to), plan, &sync.ApplyOptions{Progress: progress, Parallel: 1})
	if !errors.Is(err, context.Canceled) || len(report.Items) != 4 || report.Items[1].Error != "" || report.Items[3].Error == "" {
		t.Errorf("got %+v, %v", report, err)
	}
	if tags := tagsOf(t, to.layout, "base"); len(tags) != 0 {
		t.Errorf("it went on: base has the tags %q", tags)
	}
}

func TestApplyRefusesAPlanThatNobodyHasMade(t *testing.T) {
	from, to := shelf(t), serve(t)
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"base"}})
	must(t, err)
	for _, change := range []sync.Change{"", "sent"} {
		plan.Items[0].Change = change
		report, err := sync.Apply(t.Context(), from, at(to), saved(t, plan), nil)
		if !errors.Is(err, berth.ErrUnsupported) || report != nil {
			t.Errorf("%q: got %+v, %v", change, report, err)
		}
	}
	if writes := to.sent(); len(writes) != 0 {
		t.Errorf("it sent %q", writes)
	}
}

func TestPlanThatCannotBeMadeNamesTheHost(t *testing.T) {
	from, to := shelf(t), serve(t)
	to.refuse = func(*http.Request) bool { return true }
	_, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"base"}})
	if err == nil || !strings.Contains(err.Error(), to.Host()+"/base:latest") {
		t.Errorf("got %v", err)
	}
}

func TestPlanAndReportAreData(t *testing.T) {
	from, to := shelf(t), serve(t)
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"base"}})
	must(t, err)
	report, err := sync.Apply(t.Context(), from, at(to), saved(t, plan), nil)
	must(t, err)
	if tags := tagsOf(t, to.layout, "base"); len(tags) != 1 {
		t.Errorf("base has the tags %q", tags)
	}
	data, err := json.Marshal(report)
	must(t, err)
	for _, key := range []string{`"host":`, `"source":"base:latest"`, `"target":"base:latest"`, `"stats":{"existing":0,`, `"total":`} {
		if !strings.Contains(string(data), key) {
			t.Errorf("the report has no %s: %s", key, data)
		}
	}
	if strings.Contains(string(data), `"error"`) || strings.Contains(string(data), `"was"`) {
		t.Errorf("the report tells what is not: %s", data)
	}
}
