package berthtest

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/berthoci/berth/internal/ocirequest"
)

// rights are what may be done, by what it is done to: "repository:team/app" may be subject to "pull" and "push".
type rights map[string][]string

// needs is what a token must be good for, as the reference registry has it. A request that makes no sense needs any
// token: the registry says then what is wrong with it.
func needs(r *http.Request) rights {
	req, err := ocirequest.Parse(r.Method, r.URL)
	if err != nil || req.Kind == ocirequest.Ping {
		return nil
	}
	repository := "repository:" + req.Repository
	switch req.Kind {
	case ocirequest.Catalog:
		return rights{"registry:catalog": {"*"}}
	case ocirequest.BlobDelete, ocirequest.ManifestDelete:
		return rights{repository: {"delete"}}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return rights{repository: {"pull"}}
	}
	need := rights{repository: {"pull", "push"}}
	if req.From != "" && req.From != req.Repository {
		need["repository:"+req.From] = []string{"pull"}
	}
	return need
}

// parseRights reads scopes, of which a parameter may hold several (distribution's "Token Scope Documentation").
func parseRights(parameters []string) rights {
	all := rights{}
	for _, scope := range strings.Fields(strings.Join(parameters, " ")) {
		if i := strings.LastIndexByte(scope, ':'); i > 0 {
			all[scope[:i]] = append(all[scope[:i]], strings.Split(scope[i+1:], ",")...)
		}
	}
	return all
}

// cover reports whether what is needed may be done.
func (has rights) cover(need rights) bool {
	for what, actions := range need {
		for _, action := range actions {
			if !slices.Contains(has[what], action) && !slices.Contains(has[what], "*") {
				return false
			}
		}
	}
	return true
}

// String is the rights as a scope.
func (has rights) String() string {
	var scopes []string
	for _, what := range slices.Sorted(maps.Keys(has)) {
		scopes = append(scopes, what+":"+strings.Join(has[what], ","))
	}
	return strings.Join(scopes, " ")
}
