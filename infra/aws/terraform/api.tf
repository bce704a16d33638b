# An HTTP API before the admission function, with a limit and a log. Keys, users and paths are the
# function's own business.

resource "aws_apigatewayv2_api" "main" {
  name          = var.name
  description   = "Vestibule's operations without streams"
  protocol_type = "HTTP"
}

resource "aws_apigatewayv2_integration" "admission" {
  api_id                 = aws_apigatewayv2_api.main.id
  integration_type       = "AWS_PROXY"
  integration_uri        = aws_lambda_function.this["admission"].invoke_arn
  payload_format_version = "2.0"
  timeout_milliseconds   = 29000
}

resource "aws_apigatewayv2_route" "all" {
  api_id    = aws_apigatewayv2_api.main.id
  route_key = "$default"
  target    = "integrations/${aws_apigatewayv2_integration.admission.id}"
}

resource "aws_apigatewayv2_stage" "main" {
  api_id      = aws_apigatewayv2_api.main.id
  name        = "$default" # no stage's name in the path
  auto_deploy = true

  default_route_settings {
    throttling_rate_limit  = var.api_rate
    throttling_burst_limit = var.api_burst
  }

  # No path (it names users), no query (it may hold a token), no headers, no body.
  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.api.arn
    format = jsonencode({
      request_id          = "$context.requestId"
      time                = "$context.requestTime"
      address             = "$context.identity.sourceIp"
      method              = "$context.httpMethod"
      status              = "$context.status"
      bytes               = "$context.responseLength"
      latency_ms          = "$context.responseLatency"
      function_latency_ms = "$context.integrationLatency"
      function_status     = "$context.integrationStatus"
      error               = "$context.error.messageString"
    })
  }
}

resource "aws_cloudwatch_log_group" "api" {
  name              = "/aws/apigateway/${var.name}"
  retention_in_days = var.log_days
}

resource "aws_lambda_permission" "api" {
  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this["admission"].function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.main.execution_arn}/*/$default" # its one route, in whichever stage
}
