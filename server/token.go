package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/berthoci/berth"
)

// maxTokenForm bounds the body of a request for a token, in bytes.
const maxTokenForm = 64 << 10

// tokenAsked is a request for a token, whichever way it came.
type tokenAsked struct {
	login          bool // user and password were given, even if they are empty
	user, password string
	params         url.Values
}

// tokenAnswer is what is given for it, in the names of both specifications.
type tokenAnswer struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	IssuedAt    string `json:"issued_at"`
	Scope       string `json:"scope"`
}

// tokenRefusal is an error as registries write it, and as RFC 6749, 5.2 does.
type tokenRefusal struct {
	errorBody
	Error       string `json:"error,omitempty"`
	Description string `json:"error_description"`
}

// ServeToken answers a request for a token, in two ways:
//
//	GET ?service=berth&scope=repository:app/hello:pull,push    with Basic credentials, or none
//	POST grant_type=password, username, password, service, scope    as a form
//
// The first is distribution's "Token Authentication Specification", the second its "OAuth2 Token
// Authentication" (RFC 6749, 4.3). Several scopes stand in several parameters or with spaces between them.
// The token is for what the rules allow of them, which may be nothing: that is still good to show that
// the password is.
//
// A wrong password is answered with 401, what cannot be understood with 400 and the reason.
func (i *Issuer) ServeToken(w http.ResponseWriter, r *http.Request) {
	answer, err := i.answer(w, r)
	switch {
	case r.Context().Err() != nil: // nobody is there to read it
	case err != nil:
		refuseToken(w, err)
	default:
		writeToken(w, http.StatusOK, answer)
	}
}

func (i *Issuer) answer(w http.ResponseWriter, r *http.Request) (*tokenAnswer, error) {
	asked, err := readAsked(w, r)
	if err != nil {
		return nil, err
	}
	if service := asked.params.Get("service"); service != "" && service != tokenService {
		return nil, notUnderstood("invalid_request", "service %.100q is not this one, which is %s", service, tokenService)
	}
	scopes, err := parseScopes(asked.params["scope"])
	if err != nil {
		return nil, notUnderstood("invalid_scope", "%v", err)
	}
	if err := i.login(r, asked); err != nil {
		return nil, err
	}
	return i.give(asked.user, scopes)
}

// login makes sure that somebody is who he says. Without users nobody is, and anybody may be anonymous.
func (i *Issuer) login(r *http.Request, asked *tokenAsked) error {
	switch {
	case !asked.login:
		return nil
	case i.users == nil || asked.user == anonymous:
		return &codedError{"invalid_grant", fmt.Errorf("%w: user name or password is wrong", berth.ErrUnauthorized)}
	}
	err := i.users.Login(r.Context(), asked.user, asked.password)
	if errors.Is(err, berth.ErrUnauthorized) {
		return &codedError{"invalid_grant", err}
	}
	return err
}

// give makes a token for what a user may do of what was asked for.
func (i *Issuer) give(user string, asked []scope) (*tokenAnswer, error) {
	given, texts := []scope{}, []string{}
	for _, one := range asked {
		if one = i.rules.grant(user, one); len(one.Actions) > 0 {
			given, texts = append(given, one), append(texts, one.String())
		}
	}
	issued := i.now()
	token, err := i.sign(user, issued, given)
	return &tokenAnswer{
		Token: token, AccessToken: token, TokenType: "Bearer", Scope: strings.Join(texts, " "),
		ExpiresIn: int(tokenLife.Seconds()), IssuedAt: issued.UTC().Format(time.RFC3339),
	}, err
}

// readAsked reads a request in the way that its method stands for.
func readAsked(w http.ResponseWriter, r *http.Request) (*tokenAsked, error) {
	switch r.Method {
	case http.MethodGet:
		return readQuery(r)
	case http.MethodPost:
		return readForm(w, r)
	}
	w.Header().Set("Allow", "GET, POST")
	return nil, fmt.Errorf("%w: method %.20q is not allowed here, only GET, POST", berth.ErrUnsupported, r.Method)
}

func readQuery(r *http.Request) (*tokenAsked, error) {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, notUnderstood("invalid_request", "the query does not parse")
	}
	asked := &tokenAsked{params: params, login: r.Header.Get("Authorization") != ""}
	asked.user, asked.password, _ = r.BasicAuth()
	return asked, nil
}

// readForm reads the body alone: what is in a URL is written to logs on the way.
func readForm(w http.ResponseWriter, r *http.Request) (*tokenAsked, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxTokenForm)
	if err := r.ParseForm(); err != nil {
		return nil, notUnderstood("invalid_request", "the form does not parse, or has more than %d KiB", maxTokenForm>>10)
	}
	form := r.PostForm
	if grant := form.Get("grant_type"); grant != "password" {
		return nil, notUnderstood("unsupported_grant_type", "grant_type %.40q is not taken; log in with grant_type=password, username and password, or ask by GET", grant)
	}
	return &tokenAsked{params: form, login: true, user: form.Get("username"), password: form.Get("password")}, nil
}

// notUnderstood is an error of what was asked, with its word of RFC 6749, 5.2.
func notUnderstood(code, format string, args ...any) error {
	reason := &berth.Error{Code: berth.Code(berth.ErrUnsupported), Message: fmt.Sprintf(format, args...)}
	return &codedError{code, withStatus(http.StatusBadRequest, reason)}
}

// refuseToken answers with an error. One that is ours is not told.
func refuseToken(w http.ResponseWriter, err error) {
	status := statusOf(err)
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", basicChallenge)
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", retryAfter)
	case http.StatusInternalServerError:
		err = errors.New("the token could not be made")
	}
	body := tokenRefusal{Description: err.Error()}
	body.Errors = []errorEntry{{Code: codeOf(err), Message: err.Error()}}
	var coded *codedError
	if errors.As(err, &coded) {
		body.Error = coded.code
	}
	writeToken(w, status, body)
}

func writeToken(w http.ResponseWriter, status int, body any) {
	data, _ := json.Marshal(body)
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(defaultStall))
	w.WriteHeader(status)
	w.Write(data)
}
